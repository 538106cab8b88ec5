package journal

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// session is one run of a relay.
type session struct {
	*Relay
	name  string // this run's among those that lease
	log   *slog.Logger
	hard  context.Context // outlives Run's ctx by DrainTimeout: for calls that must end orderly
	stop  context.CancelFunc
	slots chan struct{} // one for each pool that may be at work
	all   sync.WaitGroup
	fails int // of the list, in a row
}

func newSession(ctx context.Context, r *Relay) *session {
	s := &session{Relay: r, name: rand.Text(), slots: make(chan struct{}, r.opts.MaxPools)}
	s.log = r.opts.Logger.With("component", "outbox.journal", "relay", s.name[:8])
	s.hard, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

func (s *session) run(ctx context.Context) error {
	defer s.stop() // after the drain: whoever is late must not trim for a Run that has returned
	unregister, err := s.tel.observe(s.Relay)
	if err != nil {
		return err
	}
	defer unregister()
	s.mu.Lock()
	s.pools = map[string]*pool{}
	s.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.drain()
		case <-timer.C:
			timer.Reset(s.tend(ctx))
		}
	}
}

// tend begins with pools that came to the list and ends with those that left it.
func (s *session) tend(ctx context.Context) (next time.Duration) {
	asked, cancel := context.WithTimeout(ctx, s.opts.StoreTimeout)
	list, err := s.list(asked)
	cancel()
	if ctx.Err() != nil {
		return s.opts.PoolsInterval
	}
	if err != nil {
		s.fails++
		s.tel.failed("list")
		s.log.ErrorContext(ctx, "pools can't be listed; those known go on", "failures", s.fails, "error", err)
		return min(50*time.Millisecond<<min(s.fails, 10), s.opts.PoolsInterval)
	}
	s.fails = 0
	wanted := make(map[string]bool, len(list))
	for _, name := range list {
		wanted[name] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.pools {
		if !wanted[name] {
			p.quit()
		}
		if p.gone.Load() { // begun anew only when the last call of the old one is over
			delete(s.pools, name)
		}
	}
	for name := range wanted {
		if s.pools[name] == nil {
			s.begin(ctx, name)
		}
	}
	return s.opts.PoolsInterval
}

func (s *session) begin(ctx context.Context, name string) {
	p := &pool{session: s, name: name, log: s.log.With("sku", name), wake: make(chan struct{}, 1), gap: shortestPoll, entries: 4}
	ctx, p.quit = context.WithCancel(ctx)
	s.pools[name] = p
	s.all.Go(func() {
		defer p.gone.Store(true)
		defer p.quit()
		p.run(ctx)
	})
}

// drain waits for the pools, each of which ends after its present call.
func (s *session) drain() error {
	ended := make(chan struct{})
	go func() {
		s.all.Wait()
		close(ended)
	}()
	limit := time.NewTimer(s.opts.DrainTimeout)
	defer limit.Stop()
	select {
	case <-ended:
		return nil
	case <-limit.C:
	}
	open := 0
	s.mu.Lock()
	for _, p := range s.pools {
		if !p.gone.Load() {
			open++
		}
	}
	s.mu.Unlock()
	return fmt.Errorf("journal: drain: after %v the publisher has not answered for %d pools; what it acknowledges now will be sent again",
		s.opts.DrainTimeout, open)
}
