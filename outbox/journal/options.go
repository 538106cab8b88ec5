package journal

import (
	"fmt"
	"log/slog"
	"time"
)

// Options of a [Relay]. The zero value, and nil, mean the defaults.
type Options struct {
	// PollInterval is the longest time between two looks into a journal, and so
	// the longest delay of an event of which nobody called [Relay.Notify]. While
	// events come the relay looks more often. Default 500 ms.
	PollInterval time.Duration

	// PoolsInterval is how often the list of pools is asked for. Default 5 s.
	PoolsInterval time.Duration

	// LeaseTTL is how long a pool stays with a relay that died, where the reader
	// is a [Leaser]. Default 5 s.
	LeaseTTL time.Duration

	// PublishTimeout ends the contexts of a call to the publisher. Default 10 s.
	PublishTimeout time.Duration

	// StoreTimeout bounds each call to the reader. Default 5 s.
	StoreTimeout time.Duration

	// DrainTimeout is how long Run waits, after its ctx ended, for what is being
	// published. Default 10 s.
	DrainTimeout time.Duration

	// RefusedRetry is how often a pool that was stopped by a refused event tries
	// it again. Default 1 min.
	RefusedRetry time.Duration

	// OnRefused, when set, hears of each refusal of an event: at once, and again
	// each time it is tried in vain. It is called by several pools at once, and
	// its pool waits for it.
	OnRefused func(Refusal)

	// MaxPools is how many pools are read and published at the same moment; the
	// others wait their turn. Default 4.
	MaxPools int

	// PageEvents is how many events of a pool the relay wants in memory; see the
	// package's limits. Default 4096.
	PageEvents int

	// BatchSize is how many messages an outbox.BatchPublisher gets at most.
	// Default 500.
	BatchSize int

	// Concurrency is how many calls of a pool to the publisher may be open at
	// once, each for another key, where it takes one message at a time.
	// Default 64.
	Concurrency int

	// Logger: default slog.Default(). It gets no reservation ID and no payload
	// from the relay; errors of the publisher and the reader are logged as they
	// are.
	Logger *slog.Logger
}

// Refusal is an event that the broker does not take. Its pool is stopped until it
// does.
type Refusal struct {
	Pool       string
	Epoch, Seq int64
	Err        error
}

func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	setDefault(&c.PollInterval, 500*time.Millisecond)
	setDefault(&c.PoolsInterval, 5*time.Second)
	setDefault(&c.LeaseTTL, 5*time.Second)
	setDefault(&c.PublishTimeout, 10*time.Second)
	setDefault(&c.StoreTimeout, 5*time.Second)
	setDefault(&c.DrainTimeout, 10*time.Second)
	setDefault(&c.RefusedRetry, time.Minute)
	setDefault(&c.MaxPools, 4)
	setDefault(&c.PageEvents, 4096)
	setDefault(&c.BatchSize, 500)
	setDefault(&c.Concurrency, 64)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, c.validate()
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func (o *Options) validate() error {
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"PollInterval must be at least 1ms", o.PollInterval >= time.Millisecond},
		{"PoolsInterval must be at least 10ms", o.PoolsInterval >= 10*time.Millisecond},
		{"LeaseTTL must be at least 100ms", o.LeaseTTL >= 100*time.Millisecond},
		{"PublishTimeout must be positive", o.PublishTimeout > 0},
		{"StoreTimeout must be positive", o.StoreTimeout > 0},
		{"DrainTimeout must be positive", o.DrainTimeout > 0},
		{"RefusedRetry must be at least 1ms", o.RefusedRetry >= time.Millisecond},
		{"MaxPools must be positive", o.MaxPools > 0},
		{"PageEvents must be positive", o.PageEvents > 0},
		{"BatchSize must be positive", o.BatchSize > 0},
		{"Concurrency must be positive", o.Concurrency > 0},
	} {
		if !f.ok {
			return fmt.Errorf("journal: Options.%s", f.name)
		}
	}
	return nil
}
