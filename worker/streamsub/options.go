package streamsub

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
)

// Options of a [Subscriber]. The zero value, and nil, are the documented defaults.
type Options struct {
	// Consumer names this process within the group, the same at each start and
	// different from every other that lives: a pod's name in a stateful set, say.
	// A start under a name takes over at once what the process of that name had
	// in hand. At most 100 bytes. Default: a random name, and others take over
	// after ClaimIdle.
	Consumer string
	// ClaimIdle is after what time without a sign of life an entry is taken from
	// its consumer. Default 10 s, at least 100 ms. It need not exceed the
	// handlers' time: a live process gives signs of life for what it holds.
	ClaimIdle time.Duration
	// Unmarshaler reads entries; its errors and panics become messages with
	// worker.MetaUndecodable. Default redisstream.DefaultMarshallerUnmarshaller.
	Unmarshaler redisstream.Unmarshaller
	// Logger receives Watermill's log. Default slog.Default().
	Logger *slog.Logger
}

func (o *Options) withDefaults() (Options, error) {
	out := Options{}
	if o != nil {
		out = *o
	}
	if out.ClaimIdle == 0 {
		out.ClaimIdle = 10 * time.Second
	}
	if out.Unmarshaler == nil {
		out.Unmarshaler = redisstream.DefaultMarshallerUnmarshaller{}
	}
	if out.Logger == nil {
		out.Logger = slog.Default()
	}
	switch {
	case out.ClaimIdle < 100*time.Millisecond:
		return out, fmt.Errorf("streamsub: Options.ClaimIdle is %v: must be at least 100 ms", out.ClaimIdle)
	case len(out.Consumer) > 100 || strings.Contains(out.Consumer, separator):
		return out, fmt.Errorf("streamsub: Options.Consumer %q: must have at most 100 bytes and no %q", out.Consumer, separator)
	}
	return out, nil
}
