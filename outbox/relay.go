package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Relay carries messages from a [Store] to a broker. Any number may run on one
// store, in one process or many: they spread the lanes among them.
type Relay struct {
	store     Store
	publisher message.Publisher
	batches   BatchPublisher // nil where the publisher takes one at a time
	topics    map[string]bool
	opts      Options
	tel       *telemetry

	wake    chan struct{}
	running atomic.Bool
}

// NewRelay returns a relay that sends what stands in the store to the
// publisher; if that is a [BatchPublisher], many at a time. Only the listed
// topics are sent to: a message for another one counts as refused by the broker.
// The publisher stays the caller's to close, after Run has returned.
func NewRelay(store Store, publisher message.Publisher, topics []string, opts *Options) (*Relay, error) {
	if store == nil {
		return nil, errors.New("outbox: NewRelay: store is nil")
	}
	if publisher == nil {
		return nil, errors.New("outbox: NewRelay: publisher is nil")
	}
	if len(topics) == 0 {
		return nil, errors.New("outbox: NewRelay: topics is empty: list every topic that may be sent to")
	}
	allowed := make(map[string]bool, len(topics))
	for _, topic := range topics {
		if err := checkTopic(topic); err != nil {
			return nil, fmt.Errorf("outbox: NewRelay: topics: %w", err)
		}
		allowed[topic] = true
	}
	batches, _ := publisher.(BatchPublisher)
	o, err := opts.withDefaults(batches != nil)
	if err != nil {
		return nil, err
	}
	tel, err := newTelemetry(store, allowed)
	if err != nil {
		return nil, fmt.Errorf("outbox: NewRelay: %w", err)
	}
	return &Relay{
		store: store, publisher: publisher, batches: batches, topics: allowed, opts: o, tel: tel,
		wake: make(chan struct{}, 1),
	}, nil
}

// Notify tells the relay that a transaction with messages has committed, so
// that it looks at once instead of at its next poll. It never blocks, and
// forgetting it costs delay only. Call it after the commit, not before.
func (r *Relay) Notify() {
	select {
	case r.wake <- struct{}{}:
	default: // one is waiting already; it stands for this one too
	}
}

// Run relays until ctx ends, then drains: it reads no more, waits up to
// DrainTimeout for what is being published, deletes what was acknowledged,
// gives its lanes back and returns nil. What is wrong with the store or the
// broker is logged and tried again for ever. A relay runs once at a time;
// after Run has returned it may run again.
func (r *Relay) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return errors.New("outbox: the relay runs already")
	}
	defer r.running.Store(false)
	return newLoop(r).run(ctx)
}
