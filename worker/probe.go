package worker

import (
	"slices"
	"time"
)

// probeDelay is the pause before the n-th probe. It is short, since one small
// attempt of one handler harms no server that is coming back.
var probeDelay = Exponential(100*time.Millisecond, 2*time.Second)

// probing lets a handler's attempts through, in an outage one at a time and
// after pauses. An event that waits for this holds no place among the running
// handlers. When a probe has finished its event, each one that finishes, or asks
// for [Later], lets one more through at once, so a server that is back meets 1, 2, 4, … attempts and
// not all that have waited.
type probing struct {
	narrow  bool
	limit   int // attempts at once, where narrow
	running int
	probes  int       // failed in a row
	due     time.Time // of the next one, where narrow
	alarm   time.Time // when the timer that is set rings
	queue   []*place
}

// place is one in the queue.
type place struct {
	ready   chan struct{}
	granted bool // to be tried now; else the queue is gone, and it begins anew
}

// try begins an attempt where the task need not wait for its turn. It is called
// by who holds a place among the running handlers: what was decided before
// waiting for that may be long past.
func (w *watch) try(t *task) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.probe = w.narrow
	if len(w.queue) > 0 || !w.isOpen(time.Now()) {
		return false
	}
	w.running++
	return true
}

// wait queues the task until it may be tried, which granted says, or until the
// queue is gone; ok is false when the stop, or the loss of the message, came
// first. After a grant [watch.leave] or [watch.withdraw] follows.
func (w *watch) wait(t *task, stop, lost <-chan struct{}) (granted, ok bool) {
	w.mu.Lock()
	if !w.narrow {
		w.mu.Unlock()
		return false, true
	}
	p := &place{ready: make(chan struct{})}
	w.queue = append(w.queue, p)
	t.probe = true
	w.hold(t)
	w.admit(time.Now())
	w.mu.Unlock()
	select {
	case <-p.ready:
		return p.granted, true
	case <-stop:
	case <-lost:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.queue, p); i >= 0 {
		w.queue = slices.Delete(w.queue, i, i+1)
	} else if p.granted {
		w.release()
	}
	return false, false
}

// withdraw ends what a grant began, without an attempt.
func (w *watch) withdraw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.release()
}

// outlasted takes an attempt that has outlasted its time out of those that run:
// where it never ends, no probe would be let through any more. left is what the
// task had left when the attempt began.
func (w *watch) outlasted(t *task, left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.left != left { // it ends just now
		return
	}
	t.outlast = true
	w.release()
}

func (w *watch) release() {
	w.running--
	w.admit(time.Now())
}

func (w *watch) isOpen(now time.Time) bool {
	return !w.narrow || w.running < w.limit && !now.Before(w.due)
}

// admit lets through who may go, and sees to it that it is called again when the
// next probe is due.
func (w *watch) admit(now time.Time) {
	for len(w.queue) > 0 && w.isOpen(now) {
		p := w.queue[0]
		w.queue[0] = nil // not held by the array behind the slice
		w.queue = w.queue[1:]
		if p.granted = w.narrow; p.granted {
			w.running++
		}
		close(p.ready)
	}
	if len(w.queue) == 0 || w.running >= w.limit || w.alarm.Equal(w.due) {
		return
	}
	w.alarm = w.due
	time.AfterFunc(w.due.Sub(now), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.admit(time.Now())
	})
}

// pause holds all back until the next probe.
func (w *watch) pause(now time.Time) {
	w.narrow, w.limit = true, 1
	w.probes++
	w.due = now.Add(probeDelay(w.probes))
}

// widen lets one more through at once, and all of them when none waits or as
// many run as ever may.
func (w *watch) widen() {
	if !w.narrow {
		return
	}
	w.probes, w.due = 0, time.Time{}
	if w.limit++; w.limit > w.opts.Concurrency || len(w.queue) == 0 {
		w.narrow = false
	}
}
