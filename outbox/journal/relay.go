package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
)

// Relay carries the events of pools to a broker. Any number may run on the same
// pools, in one process or many.
type Relay struct {
	reader    Reader
	leaser    Leaser // nil where the reader has no leases
	publisher message.Publisher
	batches   outbox.BatchPublisher // nil where the publisher takes one at a time
	topic     string
	list      Pools
	opts      Options
	tel       *telemetry
	running   atomic.Bool

	mu    sync.Mutex
	pools map[string]*pool // those of the present run
}

// New returns a relay that sends the events of the listed pools to a topic. The
// reader may be a [Leaser], the publisher an [outbox.BatchPublisher]. Both stay
// the caller's to close, after Run has returned.
func New(reader Reader, publisher message.Publisher, topic string, pools Pools, opts *Options) (*Relay, error) {
	if reader == nil {
		return nil, errors.New("journal: New: reader is nil")
	}
	if publisher == nil {
		return nil, errors.New("journal: New: publisher is nil")
	}
	if pools == nil {
		return nil, errors.New("journal: New: pools is nil")
	}
	if err := (outbox.Message{ID: "x", Key: "x", Topic: topic}).Validate(); err != nil {
		return nil, fmt.Errorf("journal: New: topic: %w", err)
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	tel, err := newTelemetry(topic)
	if err != nil {
		return nil, fmt.Errorf("journal: New: %w", err)
	}
	r := &Relay{reader: reader, publisher: publisher, topic: topic, list: pools, opts: o, tel: tel}
	r.leaser, _ = reader.(Leaser)
	r.batches, _ = publisher.(outbox.BatchPublisher)
	return r, nil
}

// Notify tells the relay that a pool has changed, so that it looks at once
// instead of at its next poll. It never blocks, and forgetting it costs delay
// only. It does nothing where another relay has the pool's lease, or while the
// broker is away.
func (r *Relay) Notify(pool string) {
	r.mu.Lock()
	p := r.pools[pool]
	r.mu.Unlock()
	if p == nil {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default: // one is waiting already; it stands for this one too
	}
}

// Run relays until ctx ends, then drains: it reads no more, waits up to
// DrainTimeout for what is being published, trims what was acknowledged, gives
// its leases back and returns nil. What is wrong with the reader or the broker is
// logged and tried again for ever. A relay runs once at a time; after Run has
// returned it may run again.
func (r *Relay) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return errors.New("journal: the relay runs already")
	}
	defer r.running.Store(false)
	return newSession(ctx, r).run(ctx)
}
