package sqlinbox

import (
	"database/sql"
	"errors"
	"log/slog"
	"time"
)

// Forever as [Options.Retention] keeps every row.
const Forever time.Duration = -1

// Options of an [Inbox]. The zero value, and nil, are the documented defaults.
type Options struct {
	// Retention is how long rows are kept; [Inbox.Run] removes older ones. It
	// must exceed the time after which the broker no longer repeats an event,
	// which worker.New checks. Default 30 days; [Forever] keeps all.
	Retention time.Duration
	// CleanEvery is the pause between two cleanings. Default 10 minutes.
	CleanEvery time.Duration
	// CleanChunk is how many rows one statement removes at most. Default 1,000.
	CleanChunk int
	// TxOptions are those of the handlers' transactions. Default nil, which is
	// the database's default isolation.
	TxOptions *sql.TxOptions
	// Logger receives what cleaning meets. Default slog.Default().
	Logger *slog.Logger
}

func (o *Options) withDefaults() (Options, error) {
	out := Options{}
	if o != nil {
		out = *o
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
	case out.Retention < 0 && out.Retention != Forever:
		return out, errors.New("sqlinbox: Options.Retention is negative: Forever keeps all")
	case out.CleanEvery < 0:
		return out, errors.New("sqlinbox: Options.CleanEvery is negative")
	case out.CleanChunk < 0:
		return out, errors.New("sqlinbox: Options.CleanChunk is negative")
	}
	return out, nil
}
