package sqldead

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Options of a [Store]. The zero value, and nil, are the documented defaults.
type Options struct {
	// MaxPayload is how many bytes of a payload are kept. Default 8 MiB, at most
	// 64 MiB; MySQL and MariaDB take no more than their max_allowed_packet.
	MaxPayload int
	// Retention is how long the tombstones of dropped letters are kept;
	// [Store.Run] removes older ones. It must exceed the time over which the
	// broker may repeat an event, which worker.New checks. Default 30 days.
	Retention time.Duration
	// CleanEvery is the pause between two cleanings. Default 10 minutes.
	CleanEvery time.Duration
	// CleanChunk is how many rows one statement removes at most. Default 1,000.
	CleanChunk int
	// Logger receives what cleaning meets, and which letters were cut. Default
	// slog.Default().
	Logger *slog.Logger
}

const (
	defaultPayload = 8 << 20
	largestPayload = 64 << 20
)

func (o *Options) withDefaults() (Options, error) {
	out := Options{}
	if o != nil {
		out = *o
	}
	if out.MaxPayload == 0 {
		out.MaxPayload = defaultPayload
	}
	if out.Retention == 0 {
		out.Retention = 30 * 24 * time.Hour
	}
	if out.CleanEvery == 0 {
		out.CleanEvery = 10 * time.Minute
	}
	if out.CleanChunk == 0 {
		out.CleanChunk = 1000
	}
	if out.Logger == nil {
		out.Logger = slog.Default()
	}
	switch {
	case out.MaxPayload < 0 || out.MaxPayload > largestPayload:
		return out, fmt.Errorf("sqldead: Options.MaxPayload is %d, want 1 to %d", out.MaxPayload, largestPayload)
	case out.Retention < 0:
		return out, errors.New("sqldead: Options.Retention is negative")
	case out.CleanEvery < 0:
		return out, errors.New("sqldead: Options.CleanEvery is negative")
	case out.CleanChunk < 0:
		return out, errors.New("sqldead: Options.CleanChunk is negative")
	}
	return out, nil
}
