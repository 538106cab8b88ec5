package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is all buyers with one purchase each, and the connections that carry
// them.
type crowd struct {
	target   target
	purchase purchase
	cfg      config

	sends   []send        // the first wave, taken in order
	next    atomic.Int64  // the first of them not yet taken
	late    chan send     // sends that came back and are due again
	pending atomic.Int64  // sends without an end
	done    chan struct{} // closed when pending is 0

	book  *book
	tally tally
	bell  time.Time
}

func newCrowd(cfg config, t target, run string) (*crowd, error) {
	p, err := newPurchase(t, run, cfg.sku)
	if err != nil {
		return nil, err
	}
	sends := plan(cfg.users, cfg.conns, cfg.duplicates, cfg.cut)
	c := &crowd{
		target: t, purchase: p, cfg: cfg, sends: sends,
		// Room for every send: bringing one back never blocks.
		late: make(chan send, len(sends)),
		done: make(chan struct{}),
		book: newBook(run, cfg.users, sends),
	}
	c.pending.Store(int64(len(sends)))
	return c, nil
}

// outcome is what a crowd has seen.
type outcome struct {
	elapsed     time.Duration // from the bell to the last answer
	first       time.Duration // from the bell until each send has its first answer, if only to come later
	opening     time.Duration // to open all connections, before the bell
	cpu         time.Duration // of this process, from the bell to the end; 0 where unknown
	samples     []sample
	interrupted bool // the context ended before the last answer
}

// run opens all connections, rings the bell, and returns when every send has
// ended or ctx has; then with what it has.
func (c *crowd) run(ctx context.Context, watch func(*crowd) (stop func())) (outcome, error) {
	opening := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the connections
	wires, err := openAll(ctx, c.target, c.cfg.conns)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{opening: time.Since(opening)}
	workers := c.workers(wires)
	runtime.GC() // the garbage of getting ready is not the crowd's

	var all sync.WaitGroup
	bell := make(chan struct{})
	for _, w := range workers {
		all.Go(func() {
			<-bell
			w.run(ctx)
		})
	}
	cpu := cpuTime()
	c.bell = time.Now()
	close(bell)
	stop := watch(c)
	all.Wait()
	stop()
	out.cpu = cpuTime() - cpu
	for _, w := range workers {
		out.samples = append(out.samples, w.samples...)
	}
	for _, s := range out.samples {
		out.elapsed = max(out.elapsed, s.since)
		if s.first {
			out.first = max(out.first, s.since)
		}
	}
	out.interrupted = c.pending.Load() > 0
	return out, nil
}

func (c *crowd) workers(wires []*wire) []*carrier {
	carriers := make([]*carrier, len(wires))
	for i, wire := range wires {
		carriers[i] = &carrier{
			crowd: c, wire: wire, purchase: c.purchase.clone(),
			samples: make([]sample, 0, 2*len(c.sends)/len(wires)+16),
		}
	}
	return carriers
}

// take returns the next send: one that came back before a new one, for its
// buyer has waited longer. It waits while all are under way elsewhere, and
// returns false when the last has ended.
func (c *crowd) take(ctx context.Context) (send, bool) {
	select {
	case s := <-c.late:
		return s, true
	default:
	}
	if i := c.next.Add(1) - 1; i < int64(len(c.sends)) && ctx.Err() == nil {
		return c.sends[i], true
	}
	select {
	case s := <-c.late:
		return s, true
	case <-c.done:
		return send{}, false
	case <-ctx.Done():
		return send{}, false
	}
}

// end is called once for each send.
func (c *crowd) end() {
	if c.pending.Add(-1) == 0 {
		close(c.done)
	}
}

// bringBack sends s again after a delay, over whichever connection is free
// then, unless it has been tried too often.
func (c *crowd) bringBack(s send, delay time.Duration) {
	s.tries++
	if s.tries >= maxTries {
		c.tally.gaveUp.Add(1)
		c.book.giveUp(s.buyer)
		c.end()
		return
	}
	time.AfterFunc(delay, func() { c.late <- s })
}

// dialers bounds how many connections are being opened at once, so that the
// server's accept queue does not overflow.
const dialers = 64

// openAll opens n connections or none.
func openAll(ctx context.Context, t target, n int) ([]*wire, error) {
	wires := make([]*wire, n)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range min(n, dialers) {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n) && failed.Load() == nil; i = next.Add(1) {
				conn, err := t.dial(ctx)
				if err != nil {
					err = fmt.Errorf("open connection %d of %d: %w", i, n, t.explainDial(err))
					failed.CompareAndSwap(nil, &err)
					return
				}
				wires[i-1] = wrap(ctx, conn)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		for _, w := range wires {
			if w != nil {
				w.close()
			}
		}
		return nil, *err
	}
	return wires, nil
}
