package coalesce

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	near     = 300 * time.Microsecond // a smallest trip under this: one flight at a time
	most     = 8                      // flights at once where it is longer
	patience = 10 * time.Millisecond  // no flight is stalled before
	beat     = 5 * time.Millisecond   // how often flights that are out are looked at
	recent   = 16                     // trips that count for the median,
	lately   = 64                     // and for the distance
	enough   = 4                      // that say a server is not near: the first ones connect and load scripts

	// A trip of few calls shows the distance. One of many shows the server's work
	// too, of which each call has no more than this.
	few     = 16
	perCall = 4 * time.Microsecond

	defaultStalls = 4
)

// Link is the way to one server: how far it is, how long its trips take, and
// which of them have stalled. All batchers that use the same connections should
// share one. Use [NewLink].
type Link struct {
	gate  func() error
	room  int // stalled flights at once
	far   atomic.Int32
	slow  atomic.Int64 // the slowest answer of late, in ns
	holds atomic.Int32 // stalled flights

	mu    sync.Mutex
	out   []watched
	round uint64    // which watch looks at them
	until time.Time // when it has certainly looked, if it still lives

	trips          [recent]time.Duration
	distances      [lately]time.Duration
	seen, measured int
}

// watched is a flight of any batcher.
type watched interface {
	at() *trip
	look(now time.Time, patience time.Duration)
}

const (
	unknown int32 = iota
	isNear
	isFar
)

// NewLink returns a Link of which nothing is known. connections is the size of
// the client's pool, half of which stalled flights may take; 0 means 8. gate
// tells why nothing shall be sent now, nil if it may; it is asked at each call.
func NewLink(connections int, gate func() error) *Link {
	l := &Link{gate: gate, room: defaultStalls}
	if connections > 0 {
		l.room = connections / 2
	}
	return l
}

func (l *Link) closed() error {
	if l.gate == nil {
		return nil
	}
	return l.gate()
}

func (l *Link) lanes(unordered bool) int {
	switch l.far.Load() {
	case isNear:
		return 1
	case unknown:
		if !unordered {
			return 1
		}
	}
	return max(1, min(most, l.room))
}

// stall takes one of the places of stalled flights.
func (l *Link) stall() bool {
	if int(l.holds.Add(1)) <= l.room {
		return true
	}
	l.holds.Add(-1)
	return false
}

// Slow is about how long the slowest answers took of late.
func (l *Link) Slow() time.Duration { return time.Duration(l.slow.Load()) }

// answered notes how long an answer took.
func (l *Link) answered(took time.Duration) {
	slow := time.Duration(l.slow.Load())
	if next := max(took, slow-slow/8); next != slow {
		l.slow.Store(int64(next))
	}
}

// depart has the flight looked at while it is out.
func (l *Link) depart(f watched) {
	t := f.at()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = append(l.out, f)
	// The watch is a timer that exists only while flights are out. One that is
	// long overdue belongs to a bubble (testing/synctest) that has ended.
	if t.left.After(l.until) {
		l.wind(t.left)
	}
}

func (l *Link) wind(now time.Time) {
	l.until = now.Add(100 * beat)
	l.round++
	round := l.round
	time.AfterFunc(beat, func() { l.watch(round) })
}

// watch looks at all flights that are out.
func (l *Link) watch(round uint64) {
	now := time.Now()
	l.mu.Lock()
	if round != l.round {
		l.mu.Unlock()
		return
	}
	if len(l.out) == 0 {
		l.until = time.Time{}
		l.mu.Unlock()
		return
	}
	l.wind(now)
	var due []watched
	for _, f := range l.out {
		if t := f.at(); now.Sub(t.left) > patience || !now.Before(t.deadline) {
			due = append(due, f)
		}
	}
	wait := patience
	if len(due) > 0 {
		wait = max(patience, 4*l.median())
	}
	l.mu.Unlock()
	for _, f := range due {
		f.look(now, wait)
	}
}

// median is that of the recent trips.
func (l *Link) median() time.Duration {
	n := min(l.seen, recent)
	if n == 0 {
		return 0
	}
	sorted := l.trips
	slices.Sort(sorted[:n])
	return sorted[n/2]
}

// arrive takes a flight off the list and learns from it.
func (l *Link) arrive(f watched, took time.Duration, calls int, good, stalled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, other := range l.out {
		if other == f {
			last := len(l.out) - 1
			l.out[i], l.out[last] = l.out[last], nil
			l.out = l.out[:last]
			break
		}
	}
	if stalled {
		l.holds.Add(-1)
	}
	if !good {
		return
	}
	l.answered(took)
	l.trips[l.seen%recent] = took
	l.seen++
	if calls > few {
		took = max(took-time.Duration(calls)*perCall, 0)
		if l.far.Load() == isFar {
			took = max(took, near) // it may be work all the same
		}
	}
	l.distances[l.measured%lately] = took
	l.measured++
	far := isNear
	if slices.Min(l.distances[:min(l.measured, lately)]) >= near {
		if l.measured < enough {
			return
		}
		far = isFar
	}
	if l.far.Load() != far {
		l.far.Store(far)
	}
}
