package coalesce

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// flight is one batch on its way.
type flight[Q, R any] struct {
	trip
	from  *Batcher[Q, R]
	link  *Link
	batch []*Call[Q, R]

	// These are guarded by from.mu.
	back    bool
	stalled bool // it has given its slot to another
	late    bool // its callers were told that its time is over
}

// serve flies batch after batch until nobody waits. The next batch leaves
// before the callers of the last one are woken, so that the other side does not
// wait for that.
func (b *Batcher[Q, R]) serve() {
	_ = grown(0)
	f := b.board(16)
	for f != nil {
		b.depart(f)
		late := b.arrive(f)
		var next *flight[Q, R]
		if !f.stalled { // nobody writes it any more: the flight is back
			next = b.board(min(len(f.batch), b.opts.MaxBatch))
		}
		switch {
		case late: // look wakes them; a call that had landed and flown on meanwhile it would take for one of these
		case next != nil:
			go land(f.batch)
		default:
			land(f.batch)
		}
		f = next
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

// land wakes the callers of a batch, but those that have left.
func land[Q, R any](batch []*Call[Q, R]) {
	for _, c := range batch {
		if c.state.CompareAndSwap(flying, landed) {
			c.done <- struct{}{}
		}
	}
}

// board takes the next batch from the queue; none means that the flight ends.
func (b *Batcher[Q, R]) board(room int) *flight[Q, R] {
	batch := make([]*Call[Q, R], 0, room)
	b.mu.Lock()
	defer b.mu.Unlock()
	taken, latest, open := 0, time.Time{}, false
	for _, c := range b.queue {
		if len(batch) == b.opts.MaxBatch {
			break
		}
		taken++
		if !c.state.CompareAndSwap(waiting, flying) {
			continue
		}
		batch = append(batch, c)
		open = open || c.deadline.IsZero()
		if c.deadline.After(latest) {
			latest = c.deadline
		}
	}
	rest := copy(b.queue, b.queue[taken:])
	clear(b.queue[rest:])
	b.queue = b.queue[:rest]
	if len(batch) == 0 {
		b.busy--
		return nil
	}
	f := &flight[Q, R]{from: b, link: b.opts.Link(), batch: batch}
	f.left = time.Now()
	f.deadline = f.left.Add(b.opts.Timeout)
	if !open && latest.Before(f.deadline) {
		f.deadline = latest
	}
	f.leg.deadline = f.deadline
	f.link.depart(f)
	b.launch(f.link)
	return f
}

func (b *Batcher[Q, R]) depart(f *flight[Q, R]) {
	defer func() {
		// A panic in fly must not leave callers waiting; it goes to them as
		// an error and the batcher lives on.
		if p := recover(); p != nil {
			for _, c := range f.batch {
				c.Err = fmt.Errorf("coalesce: flight panicked: %v", p)
			}
		}
	}()
	b.fly(&f.trip, f.batch)
}

// arrive ends a flight's time in the air. late says that its callers hear that
// the time is over, and are not to be woken.
func (b *Batcher[Q, R]) arrive(f *flight[Q, R]) (late bool) {
	b.mu.Lock()
	f.back, late = true, f.late
	b.mu.Unlock()
	f.link.arrive(f, time.Since(f.left), len(f.batch), f.batch[0].Err == nil, f.stalled)
	return late
}

// look is called now and then while the flight is out.
func (f *flight[Q, R]) look(now time.Time, patience time.Duration) {
	b := f.from
	if cause := f.link.closed(); cause != nil {
		b.refuse(cause)
	}
	b.mu.Lock()
	if !f.back && !f.stalled && now.Sub(f.left) > patience && f.link.stall() {
		f.stalled = true
		b.busy--
		b.launch(f.link)
	}
	over := !f.back && !f.late && !now.Before(f.deadline)
	f.late = f.late || over
	b.mu.Unlock()
	f.expire(now)
	if over {
		// The flight keeps its calls, which nobody reads or uses again.
		for _, c := range f.batch {
			if c.state.CompareAndSwap(flying, overtime) {
				c.done <- struct{}{}
			}
		}
	}
}

func (f *flight[Q, R]) at() *trip { return &f.trip }

// trip is a flight's context. It has a deadline and no timer, which a lone call
// would pay for: its [Link] looks now and then.
type trip struct {
	left time.Time
	leg

	first leg // of its tries

	mu  sync.Mutex
	try *leg // the one that is under way, if any
}

// Deadline returns when the flight's time is over.
func (l *leg) Deadline() (time.Time, bool) { return l.deadline, true }

// Value returns nil: a flight belongs to no single caller.
func (l *leg) Value(any) any { return nil }

// Err tells whether the time is over.
func (l *leg) Err() error {
	if time.Now().Before(l.deadline) {
		return nil
	}
	return context.DeadlineExceeded
}

// Done is closed some milliseconds after the deadline.
func (l *leg) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.over {
			close(l.done)
		}
	}
	return l.done
}

// leg is a time limit that somebody else watches.
type leg struct {
	deadline time.Time

	silent  Silent    // told once, when it lasts until then
	suspect time.Time // then

	mu   sync.Mutex
	over bool
	done chan struct{} // made when it is asked for
}

// end closes Done, once.
func (l *leg) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over && l.done != nil {
		close(l.done)
	}
	l.over = true
}

// expire ends what is over.
func (t *trip) expire(now time.Time) {
	t.mu.Lock()
	try := t.try
	var silent Silent
	if try != nil && try.silent != nil && !now.Before(try.suspect) {
		silent, try.silent = try.silent, nil
	}
	t.mu.Unlock()
	if silent != nil {
		silent.Silent()
	}
	if try != nil && !now.Before(try.deadline) {
		try.end()
	}
	if !now.Before(t.deadline) {
		t.leg.end()
	}
}

// Silent hears that a try is out for suspiciously long.
type Silent interface{ Silent() }

// Try is a part of a flight's time: a context that ends after limit at the
// latest, until [Finish]. Where that has not been after the time suspect, silent
// is told, once. A flight has one try at a time. ok is false, and the context the
// same, where ctx is not a flight's.
func Try(ctx context.Context, limit, suspect time.Duration, silent Silent) (try context.Context, ok bool) {
	t, ok := ctx.(*trip)
	if !ok {
		return ctx, false
	}
	l := &t.first
	if !l.deadline.IsZero() { // that was another try, whose context the client may still hold
		l = new(leg)
	}
	now := time.Now()
	l.deadline, l.suspect, l.silent = now.Add(limit), now.Add(suspect), silent
	if t.deadline.Before(l.deadline) {
		l.deadline = t.deadline
	}
	t.mu.Lock()
	t.try = l
	t.mu.Unlock()
	return l, true
}

// Finish ends the try of a flight. ctx is the flight's.
func Finish(ctx context.Context) {
	if t, ok := ctx.(*trip); ok {
		t.mu.Lock()
		t.try = nil
		t.mu.Unlock()
	}
}
