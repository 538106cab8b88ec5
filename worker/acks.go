package worker

import (
	"context"
	"sync"
	"time"
)

// acks counts the acknowledgements that the subscriber has not carried to the
// broker yet. Watermill's subscribers end a message's context when they have; a
// subscription cancelled before would lose them, and finished work would be
// delivered again.
type acks struct {
	limit int // of what is followed, for subscribers that never end the context

	mu      sync.Mutex
	open    int
	settled chan struct{} // holds a token after each change
}

func newAcks(limit int) *acks {
	return &acks{limit: limit, settled: make(chan struct{}, 1)}
}

func (a *acks) follow(ctx context.Context) {
	if ctx.Done() == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open >= a.limit {
		return
	}
	a.open++
	context.AfterFunc(ctx, a.settle)
}

func (a *acks) settle() {
	a.mu.Lock()
	a.open--
	a.mu.Unlock()
	select {
	case a.settled <- struct{}{}:
	default:
	}
}

// wait returns when all are settled, or at the limit of time.
func (a *acks) wait(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		a.mu.Lock()
		open := a.open
		a.mu.Unlock()
		if open == 0 {
			return
		}
		select {
		case <-a.settled:
		case <-timer.C:
			return
		}
	}
}
