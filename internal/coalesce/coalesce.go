// Package coalesce makes many callers share one trip.
//
// The first caller flies alone and at once. Whoever arrives while all flights
// are in the air waits and rides the next one. So a lone caller pays no delay
// and a crowd pays one trip per batch, without a rate to tune.
//
// How many flights there are depends on the way to the server, a [Link]. Where
// its smallest recent trip is under 0.3 ms there is one, and calls are served
// in order of arrival. Where it is longer, waiting for the last flight would
// double each caller's time: up to eight leave at once, and the order of arrival
// is kept to within a trip.
//
// A flight that is out for longer than 10 ms and four times the recent median is
// stalled: it no longer holds others up, and the next one leaves. At most half
// of the client's connections may be taken by stalled flights.
package coalesce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrFull is returned at once when the queue holds its maximum. Nothing was
// sent.
var ErrFull = errors.New("coalesce: queue is full")

// ErrNotSent marks a call that never left, so it surely had no effect: its
// context ended while it waited in the queue, or its [Link] is closed.
var ErrNotSent = errors.New("coalesce: given up before it was sent")

// ErrInFlight marks a call that was sent and whose answer did not come in time:
// whether it takes effect is unknown.
var ErrInFlight = errors.New("coalesce: given up in flight, outcome unknown")

// Options bounds a [Batcher]. Zero fields take the defaults.
type Options struct {
	MaxBatch int // most calls in one flight; default 512
	MaxQueue int // most calls that wait; default 65,536
	// Flights is how many leave before the first is back; default 0, by
	// distance: one where the server is near, eight where it is not. With one
	// the order of arrival is kept over batches too, but for stalled flights.
	Flights int
	// Unordered calls may use several flights before the distance is known.
	Unordered bool
	// Timeout bounds a flight; default 5 s. It ends earlier, with the latest of
	// its callers' deadlines, if all of them have one.
	Timeout time.Duration
	// Link is asked for the way that calls take, at each call and each
	// departure, and must not wait. Default: one of this Batcher alone.
	Link func() *Link
}

func (o *Options) withDefaults() Options {
	var out Options
	if o != nil {
		out = *o
	}
	if out.MaxBatch <= 0 {
		out.MaxBatch = 512
	}
	if out.MaxQueue <= 0 {
		out.MaxQueue = 1 << 16
	}
	if out.Timeout <= 0 {
		out.Timeout = 5 * time.Second
	}
	if out.Link == nil {
		own := NewLink(0, nil)
		out.Link = func() *Link { return own }
	}
	return out
}

// Call is one caller's question and, after the flight, its answer.
type Call[Q, R any] struct {
	Q   Q
	R   R
	Err error

	deadline time.Time // of its caller; zero: none
	state    atomic.Uint32
	done     chan struct{}
}

const (
	waiting uint32 = iota
	flying
	landed    // R and Err are the caller's
	abandoned // by its caller, before it was sent
	refused   // before it was sent, with Err
	overtime  // its flight's time is over; R and Err stay the flight's
)

// Batcher gathers calls into flights. Use [New].
type Batcher[Q, R any] struct {
	fly  func(ctx context.Context, batch []*Call[Q, R])
	opts Options
	pool sync.Pool

	mu    sync.Mutex
	queue []*Call[Q, R]
	busy  int // flights that hold the others up: out, and not stalled
}

// New returns a Batcher whose flights are fly. fly sets R or Err of every call
// and returns; it must not keep the batch. Its context carries the flight's
// time limit and no caller's values. When that is over the callers are gone,
// whether fly has returned or not.
func New[Q, R any](fly func(ctx context.Context, batch []*Call[Q, R]), opts *Options) *Batcher[Q, R] {
	b := &Batcher[Q, R]{fly: fly, opts: opts.withDefaults()}
	b.pool.New = func() any { return &Call[Q, R]{done: make(chan struct{}, 1)} }
	return b
}

// Do sends q with the next flight and returns its answer. When ctx or the
// flight's time ends first, the error says whether q had left ([ErrInFlight]) or
// not ([ErrNotSent]), and wraps the cause.
func (b *Batcher[Q, R]) Do(ctx context.Context, q Q) (R, error) {
	var zero R
	if ctx.Err() != nil {
		return zero, fmt.Errorf("%w: %w", ErrNotSent, context.Cause(ctx))
	}
	link := b.opts.Link()
	if err := link.closed(); err != nil {
		return zero, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	c := b.pool.Get().(*Call[Q, R])
	c.Q = q
	c.deadline, _ = ctx.Deadline()
	if !b.enqueue(c, link) {
		b.recycle(c)
		return zero, ErrFull
	}
	select {
	case <-c.done:
		return b.answer(c)
	case <-ctx.Done():
	}
	// c stays with the flight or the queue, which drop it; it is not reused.
	if c.state.CompareAndSwap(waiting, abandoned) {
		return zero, fmt.Errorf("%w: %w", ErrNotSent, context.Cause(ctx))
	}
	if c.state.Load() != flying {
		<-c.done // the answer came together with the end of ctx: the answer is worth more
		return b.answer(c)
	}
	return zero, fmt.Errorf("%w: %w", ErrInFlight, context.Cause(ctx))
}

// answer is what a call that was woken has to say.
func (b *Batcher[Q, R]) answer(c *Call[Q, R]) (R, error) {
	var zero R
	switch c.state.Load() {
	case refused:
		return zero, fmt.Errorf("%w: %w", ErrNotSent, c.Err)
	case overtime:
		return zero, fmt.Errorf("%w: %w", ErrInFlight, context.DeadlineExceeded)
	}
	r, err := c.R, c.Err
	b.recycle(c)
	return r, err
}

func (b *Batcher[Q, R]) recycle(c *Call[Q, R]) {
	var q Q
	var r R
	c.Q, c.R, c.Err = q, r, nil
	c.state.Store(waiting)
	b.pool.Put(c)
}

func (b *Batcher[Q, R]) enqueue(c *Call[Q, R], link *Link) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) >= b.opts.MaxQueue && !b.sweep() {
		return false
	}
	b.queue = append(b.queue, c)
	b.launch(link)
	return true
}

// launch starts one flight if there is room for it. b.mu is held.
func (b *Batcher[Q, R]) launch(link *Link) {
	if len(b.queue) > 0 && b.busy < b.lanes(link) {
		b.busy++
		go b.serve()
	}
}

// lanes is how many flights leave before the first is back.
func (b *Batcher[Q, R]) lanes(link *Link) int {
	if b.opts.Flights > 0 {
		return b.opts.Flights
	}
	return link.lanes(b.opts.Unordered)
}

// Load is how many calls wait and how many flights hold others up.
func (b *Batcher[Q, R]) Load() (waiting, flights int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue), b.busy
}

// sweep drops abandoned calls from a full queue, so that callers who left do
// not keep others out while a flight hangs.
func (b *Batcher[Q, R]) sweep() bool {
	kept := b.queue[:0]
	for _, c := range b.queue {
		if c.state.Load() != abandoned {
			kept = append(kept, c)
		}
	}
	clear(b.queue[len(kept):])
	b.queue = kept
	return len(kept) < b.opts.MaxQueue
}

// refuse sends away all who wait: the link is closed.
func (b *Batcher[Q, R]) refuse(cause error) {
	b.mu.Lock()
	queue := b.queue
	b.queue = nil
	b.mu.Unlock()
	for _, c := range queue {
		// Err is set before the state, which hands it to the caller; a caller that
		// leaves meanwhile doesn't look.
		c.Err = cause
		if c.state.CompareAndSwap(waiting, refused) {
			c.done <- struct{}{}
		}
	}
}
