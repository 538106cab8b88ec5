package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// contest is one row: two sides that answer the same calls.
type contest struct {
	name       string
	callers    int // goroutines that call at the same time
	calls      int // of all callers together, in one turn
	ours, peer side
}

// side prepares one turn. All that costs time and is no part of the call (to
// make IDs, to open the pool) is done here.
type side func(ctx context.Context, a *arena, calls int) (*turn, error)

// turn is one side's preparation for one round.
type turn struct {
	call  func(ctx context.Context, i int) error // the i-th of the calls, from 0
	check func(ctx context.Context) error        // after the last: was the work done?
	close func()
}

// score is what one turn measured.
type score struct {
	perSecond float64
	p50, p99  time.Duration
	longest   time.Duration
	redis     float64 // µs of Redis CPU in scripts, per call
	cpu       float64 // µs of CPU of this process and Redis, per call
	allocs    float64 // of the whole process, per call
}

type scores struct{ ours, peer []score }

// fight runs the rounds. Who begins changes from round to round.
func (c contest) fight(ctx context.Context, a *arena, s settings) (scores, error) {
	var out scores
	for round := range s.rounds {
		sides := []struct {
			name string
			run  side
			to   *[]score
		}{{"ours", c.ours, &out.ours}, {"peer", c.peer, &out.peer}}
		if round%2 == 1 {
			slices.Reverse(sides)
		}
		for _, one := range sides {
			if s.only != "" && s.only != one.name {
				continue
			}
			score, err := c.play(ctx, a, one.run)
			if err != nil {
				return out, fmt.Errorf("%s: %w", one.name, err)
			}
			*one.to = append(*one.to, score)
		}
	}
	return out, nil
}

func (c contest) play(ctx context.Context, a *arena, run side) (score, error) {
	t, err := run(ctx, a, c.calls)
	if err != nil {
		return score{}, err
	}
	defer a.sweep(ctx)
	defer t.close()
	runtime.GC()
	if err := a.resetStats(ctx); err != nil {
		return score{}, err
	}
	idle, err := a.cpu(ctx)
	if err != nil {
		return score{}, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	took, latencies, err := c.rush(ctx, t)
	runtime.ReadMemStats(&after)
	if err != nil {
		return score{}, err
	}
	if err := t.check(ctx); err != nil {
		return score{}, err
	}
	busy, err := a.cpu(ctx)
	if err != nil {
		return score{}, err
	}
	usec, err := a.scriptMicros(ctx)
	if err != nil {
		return score{}, err
	}
	slices.Sort(latencies)
	n := float64(c.calls)
	return score{
		perSecond: n / took.Seconds(),
		p50:       latencies[len(latencies)/2],
		p99:       latencies[len(latencies)*99/100],
		longest:   latencies[len(latencies)-1],
		redis:     usec / n,
		cpu:       float64((busy - idle).Microseconds()) / n,
		allocs:    float64(after.Mallocs-before.Mallocs) / n,
	}, nil
}

// rush lets all callers go at once; each takes the next call that is left, so
// that the calls begin in their order.
func (c contest) rush(ctx context.Context, t *turn) (time.Duration, []time.Duration, error) {
	latencies := make([]time.Duration, c.calls)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var ready, done sync.WaitGroup
	bell := make(chan struct{})
	ready.Add(c.callers)
	for range c.callers {
		done.Go(func() {
			own, cancel := context.WithCancel(ctx) // as each request of a server has one
			defer cancel()
			ready.Done()
			<-bell
			for {
				i := int(next.Add(1)) - 1
				if i >= c.calls || failed.Load() != nil {
					return
				}
				begun := time.Now()
				if err := t.call(own, i); err != nil {
					failed.Store(&err)
					return
				}
				latencies[i] = time.Since(begun)
			}
		})
	}
	ready.Wait()
	begun := time.Now()
	close(bell)
	done.Wait()
	took := time.Since(begun)
	if err := failed.Load(); err != nil {
		return 0, nil, *err
	}
	return took, latencies, errors.Join(ctx.Err())
}
