package worker

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// suspectKeys different keys of a handler have failed, or so many attempts
	// in a row have met an outage, and it has finished nothing between: that is
	// an outage, whatever the errors say. Package outbox has the same rule.
	suspectKeys = 3
	// settledFor is how long this must last before the handler's events are
	// held back. Where a part of a server is away (one node of a cluster), three
	// failures in a row are common, a second without a finished event is not.
	settledFor = time.Second
	// testimony is how many other events the handler must have finished before
	// an event's outage is taken for its own.
	testimony = 20

	// After quickConflicts tries contention waits a little, and after
	// passingConflicts it is no longer in passing: it is treated as an outage.
	quickConflicts   = 3
	passingConflicts = 10
	longestConflict  = 100 * time.Millisecond
)

// outageDelay is a key's wait after the n-th failure that did not count. It ends
// by itself, so it also bounds how late a key notices that a partial outage is
// over.
var outageDelay = Exponential(100*time.Millisecond, 10*time.Second)

// contentionDelay is the same where contention lasts: who is in the way goes on,
// and an event that waits long finds the next one there.
var contentionDelay = Exponential(100*time.Millisecond, time.Second)

// watch is what the attempts of one handler tell of the servers behind it. It
// decides which failures count, and holds events back while there is an outage:
// probe.go has that part.
//
// # Which failures count
//
// A failure that nothing is known of (answerFailed) counts, unless suspectKeys
// keys of the handler have failed since it last finished an event and it has
// finished none since this key's own last failure; and it counts in any case
// [Options.OutagePatience] after the event's first failure that did not.
//
// An outage by its nature or by [Unavailable], and contention that lasts, do not
// count, until OutagePatience after the event's first such failure the handler
// has finished testimony other events, one of them since the last failure; and
// they count in any case after [Options.OutageLimit].
//
// So every event ends: while others are finished it is its own fault, within
// OutagePatience and so many others; while none are, unknown errors are
// believed to be an outage for OutagePatience and certain ones for OutageLimit.
type watch struct {
	handler   *handler
	opts      *Options
	telemetry *telemetry

	mu       sync.Mutex
	finished uint64 // events, in this run

	// Since the handler last finished one:
	suspects map[laneID]bool // keys that failed, suspectKeys at most
	inRow    int             // attempts that met an outage
	since    time.Time       // the first failure

	probing // guarded by mu too

	held  int       // keys that wait because of an outage
	began time.Time // of the outage that the log tells of; zero when there is none
}

// trouble is what an event has met so far.
type trouble struct {
	failed    int // failures that counted
	excused   int // and those that did not
	conflicts int // contention in a row

	since time.Time // the first that did not count
	then  uint64    // what the handler had finished by then
	last  uint64    // and by the last failure of any kind

	answer answer // of the last attempt
	probe  bool   // it was let through one of few
	held   bool   // counted in watch.held

	left    int  // attempts that have ended
	outlast bool // the one that runs is past its time, and not in watch.running
}

// ruling is what follows from an answer.
type ruling struct {
	excused bool          // a failure that did not count
	delay   time.Duration // before the next attempt
	began   bool          // an outage begins: a line for the log
}

func newWatch(w *Worker, h *handler) *watch {
	return &watch{handler: h, opts: &w.opts, telemetry: w.telemetry, suspects: map[laneID]bool{}}
}

// leave takes the answer of an attempt.
func (w *watch) leave(t *task, a answer) ruling {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	t.left++
	if !t.outlast {
		w.running--
	}
	t.outlast = false
	defer w.admit(now)
	t.answer = a
	if a != answerContention {
		t.conflicts = 0
	}
	switch a {
	case answerDone:
		w.finish()
		return ruling{}
	case answerLater: // it met no outage, though it finished nothing
		w.widen()
		return ruling{}
	case answerContention:
		if t.conflicts++; t.conflicts <= passingConflicts {
			t.excuse(w.finished, now)
			return ruling{excused: true, delay: conflictDelay(t.conflicts)}
		}
	case answerUnavailable, answerFailed:
	default:
		return ruling{}
	}
	w.accuse(t, a, now)
	counts := w.counts(t, a, now)
	t.last = w.finished
	if counts {
		t.failed++
		return ruling{delay: w.opts.Retry(t.failed)}
	}
	t.excuse(w.finished, now)
	t.excused++
	w.hold(t)
	r := ruling{excused: true, began: w.begins(t, now)}
	switch {
	case w.narrow: // the queue of probes is its wait
	case a == answerContention:
		r.delay = contentionDelay(t.excused)
	default:
		r.delay = outageDelay(t.excused)
	}
	return r
}

// excuse notes when the event's patience begins.
func (t *trouble) excuse(finished uint64, now time.Time) {
	if t.since.IsZero() {
		t.since, t.then = now, finished
	}
}

// finish takes note that the handler finished an event, which clears all others
// of suspicion.
func (w *watch) finish() {
	w.finished++
	clear(w.suspects)
	w.inRow = 0
	w.widen()
}

// accuse takes a failure as evidence.
func (w *watch) accuse(t *task, a answer, now time.Time) {
	if len(w.suspects) == 0 {
		w.since = now
	}
	if len(w.suspects) < suspectKeys {
		w.suspects[t.d.lane(t.handler)] = true
	}
	if a != answerFailed {
		w.inRow++
	}
	sure := len(w.suspects) >= suspectKeys || w.inRow >= suspectKeys
	switch {
	case w.narrow && t.probe && (w.limit == 1 || sure):
		w.pause(now)
	case !w.narrow && sure && now.Sub(w.since) >= settledFor:
		w.probes = 0
		w.pause(now)
	}
}

// counts decides whether a failure is an attempt towards the dead letters.
func (w *watch) counts(t *task, a answer, now time.Time) bool {
	waited := time.Duration(0)
	if !t.since.IsZero() {
		waited = now.Sub(t.since)
	}
	othersGoOn := (t.failed > 0 || t.excused > 0) && w.finished > t.last
	if a == answerFailed {
		return len(w.suspects) < suspectKeys || othersGoOn || waited >= w.opts.OutagePatience
	}
	return waited >= w.opts.OutageLimit ||
		waited >= w.opts.OutagePatience && w.finished-t.then >= testimony && othersGoOn
}

// begins reports whether to tell of an outage: once until all are through.
func (w *watch) begins(t *task, now time.Time) bool {
	if !w.began.IsZero() || !w.narrow && t.excused < suspectKeys {
		return false
	}
	w.began = now
	return true
}

// hold counts a key among those that wait because of an outage.
func (w *watch) hold(t *task) {
	if !t.held {
		t.held = true
		w.held++
		w.telemetry.waits(w.handler, 1)
	}
}

// through ends a task. With the last that waited the outage is over; lasted is
// zero where there was none to tell of.
func (w *watch) through(t *task) (lasted time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !t.held {
		return 0
	}
	t.held = false
	w.telemetry.waits(w.handler, -1)
	if w.held--; w.held > 0 || w.began.IsZero() {
		return 0
	}
	lasted = max(time.Since(w.began), 1)
	w.began = time.Time{}
	return lasted
}

// conflictDelay is nothing at first: who was in the way has mostly gone.
func conflictDelay(n int) time.Duration {
	if n <= quickConflicts {
		return 0
	}
	return rand.N(min(time.Millisecond<<min(n-quickConflicts, 10), longestConflict))
}
