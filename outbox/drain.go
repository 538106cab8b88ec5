package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// drain ends a run: what is being published may end, what was acknowledged is
// deleted, the lanes are given back. Heartbeats go on meanwhile.
func (l *loop) drain() error {
	l.draining = true
	limit := time.NewTimer(l.opts.DrainTimeout)
	defer limit.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.step(time.Now())
		if l.open == 0 && len(l.acked) == 0 && len(l.moves) == 0 && !l.storeBusy && !l.leasing {
			return l.goodbye()
		}
		timer.Reset(time.Until(l.nextDue()))
		select {
		case event := <-l.events:
			l.handle(event)
		case <-timer.C:
		case <-limit.C:
			return l.abandon()
		}
	}
}

// goodbye gives the lanes back, so that the others need not wait for the leases
// to end. Those with a call still open are kept: it may succeed yet.
func (l *loop) goodbye() error {
	var keep []int
	for n, la := range l.lanes {
		if l.zombies[n] > 0 || la != nil && la.open > 0 {
			keep = append(keep, n)
		}
	}
	ctx, cancel := context.WithTimeout(l.base, l.opts.StoreTimeout)
	defer cancel()
	if err := l.giveBack(ctx, keep); err != nil {
		return fmt.Errorf("outbox: drain: %w", err)
	}
	return nil
}

const giveBackTries = 5

// giveBack tries again where the store fails: others work on the same rows, and a
// database may end the one that meets them in a deadlock.
func (l *loop) giveBack(ctx context.Context, keep []int) (err error) {
	for try := range giveBackTries {
		if err = l.store.Leave(ctx, l.id, keep); err == nil {
			return nil
		}
		select {
		case <-time.After(time.Duration(try+1) * 20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
	return err
}

// abandon is the end of the drain's patience.
func (l *loop) abandon() error {
	err := fmt.Errorf("outbox: drain: after %v %d calls to the publisher are open and %d acknowledged messages are not deleted; they will be sent again",
		l.opts.DrainTimeout, l.open, len(l.acked))
	l.stopPub()
	return errors.Join(err, l.goodbye())
}
