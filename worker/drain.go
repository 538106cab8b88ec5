package worker

import (
	"time"
)

const (
	// cancelWait is how long handlers have to return once their context ended.
	cancelWait = 5 * time.Second
	// ackWait is how long the subscriber has to carry the last acknowledgements
	// to the broker.
	ackWait = 5 * time.Second
	// closeWait is how long a subscription has to end: offsets, leaving a group.
	closeWait = 10 * time.Second
)

// drain ends the run step by step: intake, handlers, acknowledgements,
// subscriptions.
func (r *run) drain() error {
	close(r.stopping)
	idle := r.lanes.close()

	if !within(idle, r.w.opts.Grace) {
		r.log.Warn("worker: grace is over, cancelling handlers", "grace", r.w.opts.Grace)
	}
	r.abort()
	finished := within(idle, cancelWait)

	r.acks.wait(ackWait)
	r.unsubscribe()
	left := make(chan struct{})
	go func() {
		r.intake.Wait()
		close(left)
	}()
	if !within(left, closeWait) {
		r.log.Warn("worker: subscriptions did not end in time", "limit", closeWait)
	}
	if !finished {
		r.log.Error("worker: handlers ignored the end of their context", "limit", cancelWait)
		return ErrStillRunning
	}
	return nil
}

// within waits for done; false when the limit came first.
func within(done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
