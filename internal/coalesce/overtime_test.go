package coalesce_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/coalesce"
)

type silent func()

func (s silent) Silent() { s() }

// A flight may be back just when its callers are to be told that its time is
// over. None of its calls may be on another flight by then.
func TestOvertime_TellsNoCallOfAnotherFlight(t *testing.T) {
	t.Parallel()
	const limit, calls = 50 * time.Millisecond, 64
	var told sync.Once
	back := make(chan struct{})
	b := coalesce.New(func(ctx context.Context, batch []*coalesce.Call[bool, bool]) {
		if batch[0].Q {
			coalesce.Try(ctx, time.Hour, limit, silent(func() {
				told.Do(func() {
					close(back) // the flight lands before its callers are told
					time.Sleep(10 * time.Millisecond)
				})
			}))
			<-back
			coalesce.Finish(ctx)
			return
		}
		time.Sleep(20 * time.Millisecond) // all its calls are out meanwhile
		for _, c := range batch {
			c.R = true
		}
	}, &coalesce.Options{Flights: 8, Timeout: limit})
	var wrong atomic.Int64
	var crowd sync.WaitGroup
	for range calls {
		crowd.Go(func() {
			_, _ = b.Do(t.Context(), true)
			start := time.Now()
			if _, err := b.Do(t.Context(), false); errors.Is(err, coalesce.ErrInFlight) && time.Since(start) < limit {
				wrong.Add(1)
			}
		})
	}
	crowd.Wait()
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d of %d calls were told before their time that it was over", n, calls)
	}
}
