package outbox

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// AfterParked says what becomes of the later messages of a key when one of its
// messages was parked.
type AfterParked uint8

const (
	// HoldKey keeps them behind it until an operator requeues or drops it. Order
	// is kept. The default.
	HoldKey AfterParked = iota
	// SkipKey lets them go on without it; requeued, it comes after them.
	SkipKey
)

// Options of a [Relay]. The zero value, and nil, mean the defaults.
type Options struct {
	// MaxAttempts is how often a message is tried before it is parked.
	// Default 15, with the default Backoff about six minutes.
	MaxAttempts int

	// AfterParked: default [HoldKey].
	AfterParked AfterParked

	// Backoff is the delay after a failed attempt. Default [DefaultBackoff]:
	// 100 ms, doubled up to one minute, each from half to the whole.
	Backoff Backoff

	// PollInterval is the longest time between two looks into the store, and so
	// the longest delay of a message whose writer did not call [Relay.Notify].
	// While there is work the relay looks more often. Default 500 ms.
	PollInterval time.Duration

	// LeaseTTL is how long lanes stay with a relay that died or froze; it is
	// renewed four times within. Default 10 s.
	LeaseTTL time.Duration

	// PublishTimeout is the time in which the publisher answers; set its own
	// timeouts below. Nothing is sent when less than this is left of the
	// lease, and the messages' contexts end after it. At most half of
	// LeaseTTL. Default half of it.
	PublishTimeout time.Duration

	// StoreTimeout bounds each call to the store. Default 5 s.
	StoreTimeout time.Duration

	// DrainTimeout is how long Run waits, after its ctx ended, for what is being
	// published. Default 10 s.
	DrainTimeout time.Duration

	// Concurrency is how many calls to the publisher may be open at once, each
	// for another key. Default 64; 4 where the publisher takes batches.
	Concurrency int

	// BatchSize is how many messages a [BatchPublisher] gets at most. Default 500.
	BatchSize int

	// MaxMessages and MaxBytes bound what the relay holds in memory: messages
	// read and not yet settled, and their payloads (by one page more at most).
	// Defaults 8192 and 32 MiB.
	MaxMessages int
	MaxBytes    int

	// MaxWaitingKeys is how many keys may wait in backoff before the relay stops
	// reading on. Each costs some 200 bytes. Default 100,000.
	MaxWaitingKeys int

	// Logger: default slog.Default(). It gets no key, ID or payload from the
	// relay; errors of the publisher and the store are logged as they are.
	Logger *slog.Logger
}

// DefaultBackoff is 100 ms after the first attempt, doubled up to one minute,
// each time a random point from half of it to the whole.
func DefaultBackoff(attempt int) time.Duration {
	const first, longest = 100 * time.Millisecond, time.Minute
	d := longest
	if attempt < 1 {
		attempt = 1
	}
	if attempt < 11 { // 100 ms << 10 is above a minute
		d = min(first<<(attempt-1), longest)
	}
	return d/2 + rand.N(d/2+1)
}

func (o *Options) withDefaults(batches bool) (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	setDefault(&c.MaxAttempts, 15)
	setDefault(&c.PollInterval, 500*time.Millisecond)
	setDefault(&c.LeaseTTL, 10*time.Second)
	setDefault(&c.PublishTimeout, c.LeaseTTL/2)
	setDefault(&c.StoreTimeout, 5*time.Second)
	setDefault(&c.DrainTimeout, 10*time.Second)
	if batches {
		setDefault(&c.Concurrency, 4)
	}
	setDefault(&c.Concurrency, 64)
	setDefault(&c.BatchSize, 500)
	setDefault(&c.MaxMessages, 8192)
	setDefault(&c.MaxBytes, 32<<20)
	setDefault(&c.MaxWaitingKeys, 100_000)
	if c.Backoff == nil {
		c.Backoff = DefaultBackoff
	}
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
		{"MaxAttempts must not be negative", o.MaxAttempts > 0},
		{"AfterParked must be HoldKey or SkipKey", o.AfterParked <= SkipKey},
		{"PollInterval must be at least 1ms", o.PollInterval >= time.Millisecond},
		{"LeaseTTL must be at least 100ms", o.LeaseTTL >= 100*time.Millisecond},
		{"PublishTimeout must be positive and at most half of LeaseTTL", o.PublishTimeout > 0 && o.PublishTimeout <= o.LeaseTTL/2},
		{"StoreTimeout must be positive", o.StoreTimeout > 0},
		{"DrainTimeout must be positive", o.DrainTimeout > 0},
		{"Concurrency must be positive", o.Concurrency > 0},
		{"BatchSize must be positive", o.BatchSize > 0},
		{"MaxMessages must be at least 64", o.MaxMessages >= Lanes},
		{"MaxBytes must be positive", o.MaxBytes > 0},
		{"MaxWaitingKeys must be positive", o.MaxWaitingKeys > 0},
	} {
		if !f.ok {
			return fmt.Errorf("outbox: Options.%s", f.name)
		}
	}
	return nil
}
