// Package coalesce makes many callers share one trip.
//
// The first caller flies alone and at once. Whoever arrives while all flights
// are in the air waits and rides the next one, in order of arrival. So a lone
// caller pays no delay and a crowd pays one trip per batch, without a timer
// and without a rate to tune.
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

// ErrNotSent marks a call whose context ended while it still waited in the
// queue: it never left, so it surely had no effect.
var ErrNotSent = errors.New("coalesce: given up before it was sent")

// ErrInFlight marks a call whose context ended after it was sent: whether it
// takes effect is unknown.
var ErrInFlight = errors.New("coalesce: given up in flight, outcome unknown")

// Options bounds a [Batcher]. Zero fields take the defaults.
type Options struct {
	MaxBatch int           // most calls in one flight; default 512
	MaxQueue int           // most calls that wait; default 65,536
	Flights  int           // flights in the air at once; default 1, which keeps arrival order over batches too
	Timeout  time.Duration // bound of one flight; default 5 s
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
	if out.Flights <= 0 {
		out.Flights = 1
	}
	if out.Timeout <= 0 {
		out.Timeout = 5 * time.Second
	}
	return out
}

// Call is one caller's question and, after the flight, its answer.
type Call[Q, R any] struct {
	Q   Q
	R   R
	Err error

	state atomic.Uint32
	done  chan struct{}
}

const (
	waiting uint32 = iota
	flying
	landed
	abandoned
)

// Batcher gathers calls into flights. Use [New].
type Batcher[Q, R any] struct {
	fly  func(ctx context.Context, batch []*Call[Q, R])
	opts Options
	pool sync.Pool

	mu    sync.Mutex
	queue []*Call[Q, R]
	busy  int
}

// New returns a Batcher whose flights are fly. fly sets R or Err of every call
// and returns; it must not keep the batch. Its context carries the flight's
// time limit and no caller's values.
func New[Q, R any](fly func(ctx context.Context, batch []*Call[Q, R]), opts *Options) *Batcher[Q, R] {
	b := &Batcher[Q, R]{fly: fly, opts: opts.withDefaults()}
	b.pool.New = func() any { return &Call[Q, R]{done: make(chan struct{}, 1)} }
	return b
}

// Do sends q with the next flight and returns its answer. When ctx ends first,
// the error says whether q had left ([ErrInFlight]) or not ([ErrNotSent]), and
// wraps the context's cause.
func (b *Batcher[Q, R]) Do(ctx context.Context, q Q) (R, error) {
	var zero R
	if ctx.Err() != nil {
		return zero, fmt.Errorf("%w: %w", ErrNotSent, context.Cause(ctx))
	}
	c := b.pool.Get().(*Call[Q, R])
	c.Q = q
	if !b.enqueue(c) {
		b.recycle(c)
		return zero, ErrFull
	}
	select {
	case <-c.done:
		r, err := c.R, c.Err
		b.recycle(c)
		return r, err
	case <-ctx.Done():
	}
	// c stays with the flight or the queue, which drop it; it is not reused.
	if c.state.CompareAndSwap(waiting, abandoned) {
		return zero, fmt.Errorf("%w: %w", ErrNotSent, context.Cause(ctx))
	}
	if c.state.Load() == landed {
		<-c.done // the answer came together with the end of ctx: the answer is worth more
		return c.R, c.Err
	}
	return zero, fmt.Errorf("%w: %w", ErrInFlight, context.Cause(ctx))
}

func (b *Batcher[Q, R]) recycle(c *Call[Q, R]) {
	var q Q
	var r R
	c.Q, c.R, c.Err = q, r, nil
	c.state.Store(waiting)
	b.pool.Put(c)
}

func (b *Batcher[Q, R]) enqueue(c *Call[Q, R]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) >= b.opts.MaxQueue && !b.sweep() {
		return false
	}
	b.queue = append(b.queue, c)
	if b.busy < b.opts.Flights {
		b.busy++
		go b.serve()
	}
	return true
}

// Load is how many calls wait and how many flights are in the air.
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

// serve flies batch after batch until nobody waits. The next batch leaves
// before the callers of the last one are woken, so that the other side does not
// wait for that.
func (b *Batcher[Q, R]) serve() {
	_ = grown(0)
	batch := b.board(make([]*Call[Q, R], 0, 16))
	for len(batch) > 0 {
		b.depart(batch)
		next := b.board(make([]*Call[Q, R], 0, min(len(batch), b.opts.MaxBatch)))
		if len(next) > 0 {
			go land(batch)
		} else {
			land(batch)
		}
		batch = next
	}
}

// grown makes a new goroutine's stack as large as a trip needs, at once: growing
// it by doubling, a copy each time, costs a lone call more than all else here.
//
//go:noinline
func grown(i int) byte {
	var frame [12 << 10]byte
	return frame[i]
}

// land wakes the callers of a batch.
func land[Q, R any](batch []*Call[Q, R]) {
	for _, c := range batch {
		c.state.Store(landed)
		c.done <- struct{}{}
	}
}

// board takes the next batch from the queue; none means that the flight ends.
func (b *Batcher[Q, R]) board(batch []*Call[Q, R]) []*Call[Q, R] {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := 0
	for _, c := range b.queue {
		if len(batch) == b.opts.MaxBatch {
			break
		}
		taken++
		if c.state.CompareAndSwap(waiting, flying) {
			batch = append(batch, c)
		}
	}
	rest := copy(b.queue, b.queue[taken:])
	clear(b.queue[rest:])
	b.queue = b.queue[:rest]
	if len(batch) == 0 {
		b.busy--
	}
	return batch
}

// flightContext has a deadline and no timer, which a lone call would pay for:
// what a flight does sets its own by the deadline. Its Done never fires.
type flightContext struct {
	context.Context
	deadline time.Time
}

// Deadline returns when the flight's time is over.
func (f flightContext) Deadline() (time.Time, bool) { return f.deadline, true }

// Err tells whether it is.
func (f flightContext) Err() error {
	if time.Now().Before(f.deadline) {
		return nil
	}
	return context.DeadlineExceeded
}

func (b *Batcher[Q, R]) depart(batch []*Call[Q, R]) {
	ctx := flightContext{context.Background(), time.Now().Add(b.opts.Timeout)}
	defer func() {
		// A panic in fly must not leave callers waiting; it goes to them as
		// an error and the batcher lives on.
		if p := recover(); p != nil {
			for _, c := range batch {
				c.Err = fmt.Errorf("coalesce: flight panicked: %v", p)
			}
		}
	}()
	b.fly(ctx, batch)
}
