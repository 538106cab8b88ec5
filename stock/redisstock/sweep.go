package redisstock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/stock"
)

const (
	sweepIDs    = 512                    // holds looked at in one script call
	undecidedMs = 500                    // how long an undecided hold is left in peace
	roomWait    = 100 * time.Millisecond // how long a reservation waits for the ledger's verdicts
	longestNap  = time.Second            // Run looks at least this often
)

// makeRoom frees holds past their time, once for all callers who need it now.
// With a ledger its verdicts may wait for an open order, so a caller waits a
// moment only; the next answer is then "all held".
func (s *Store) makeRoom(ctx context.Context, p *pool) error {
	ch := p.sweeps.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Timeout)
		defer cancel()
		_, err := s.sweep(ctx, p)
		return nil, err
	})
	var late <-chan time.Time
	if s.ledger != nil {
		t := time.NewTimer(roomWait)
		defer t.Stop()
		late = t.C
	}
	select {
	case r := <-ch:
		return r.Err
	case <-late:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", stock.ErrUnknown, context.Cause(ctx))
	}
}

// sweep frees what is past its time and may go, at most some hundreds of
// holds, and returns how long until there is more to do.
func (s *Store) sweep(ctx context.Context, p *pool) (time.Duration, error) {
	p.asking.Store(s.ledger != nil)
	defer p.asking.Store(false)
	r, err := s.call(ctx, p, false, s.scripts.sweep, 4, sweepIDs)
	if err != nil {
		p.mayReopen(err)
		return longestNap, err
	}
	freed := toInt(r.rest[3])
	if found := toString(r.rest[2]); found != "" {
		if freed, err = s.decide(ctx, p, found); err != nil {
			return longestNap, err
		}
	}
	if freed > 0 {
		p.reopen()
	}
	if toString(r.rest[0]) == "1" {
		return 0, nil
	}
	if wait := toInt(r.rest[1]); wait >= 0 {
		return min(time.Duration(wait)*time.Millisecond, longestNap), nil
	}
	return longestNap, nil
}

// decide asks the ledger about holds past their time, applies its verdicts and
// returns how many holds they have freed.
func (s *Store) decide(ctx context.Context, p *pool, found string) (freed int64, err error) {
	ids := make([]stock.ID, 0, len(found)/28)
	for ; len(found) >= 28; found = found[28:] {
		ids = append(ids, idOf(p, found[:28]))
	}
	verdicts, err := s.ledger.Expire(ctx, p.opened.SKU, ids)
	if err != nil {
		return 0, fmt.Errorf("ask the ledger about expired holds: %w", err)
	}
	if len(verdicts) != len(ids) {
		return 0, fmt.Errorf("redisstock: the ledger gave %d verdicts on %d holds", len(verdicts), len(ids))
	}
	if err := s.followParts(ctx, p, ids, verdicts); err != nil {
		return 0, err
	}
	blob, letters := make([]byte, 0, 28*len(ids)), make([]byte, 0, len(ids))
	for i, id := range ids {
		blob = append(blob, id[8:]...)
		letters = append(letters, letterOf(verdicts[i]))
	}
	r, err := s.call(ctx, p, false, s.scripts.settle, 1, blob, letters, undecidedMs)
	if err != nil {
		p.mayReopen(err)
		return 0, err
	}
	return toInt(r.rest[0]), nil
}

// followParts confirms what the ledger has sold a part of: a verdict does not
// say how much.
func (s *Store) followParts(ctx context.Context, p *pool, ids []stock.ID, verdicts []stock.Verdict) error {
	var sold []stock.ID
	for i, v := range verdicts {
		if v == stock.IsSold {
			sold = append(sold, ids[i])
		}
	}
	if len(sold) == 0 {
		return nil
	}
	entries, err := s.ledger.Find(ctx, p.opened.SKU, sold)
	if err != nil {
		return fmt.Errorf("ask the ledger about parts: %w", err)
	}
	for _, e := range entries {
		if len(e.Released) == 0 {
			continue
		}
		part := e.Lines
		if len(part) == 0 {
			part = []stock.Line{{Quantity: e.Quantity}}
		}
		if _, err := s.Confirm(ctx, e.ID, part...); err != nil {
			return fmt.Errorf("follow a part sale: %w", err)
		}
	}
	return nil
}

func letterOf(v stock.Verdict) byte {
	switch v {
	case stock.Free:
		return 'f'
	case stock.Keep:
		return 'k'
	case stock.IsSold:
		return 's'
	default:
		return 'u'
	}
}

// Run keeps the pools that this process has met alive until ctx ends: it
// frees holds when their time comes, so that their events are told and their
// units show as free even when nobody asks; it records in the ledger how far
// each pool's history went; and with Options.AutoRebuild it rebuilds a pool
// that was fenced. Correctness never waits for it. Several processes may run
// it; it returns nil when ctx ends.
func (s *Store) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-s.fenced:
			s.restoreFenced(ctx, p)
			continue
		case <-timer.C:
		}
		timer.Reset(s.round(ctx))
	}
}

func (s *Store) restoreFenced(ctx context.Context, p *pool) {
	if !s.opts.AutoRebuild {
		return
	}
	levels, err := s.Rebuild(ctx, p.opened.SKU)
	if err != nil {
		s.opts.Logger.ErrorContext(ctx, "stock: rebuild failed", "sku", p.opened.SKU, "error", err)
		return
	}
	s.opts.Logger.WarnContext(ctx, "stock: pool was fenced and is rebuilt",
		"sku", p.opened.SKU, "free", levels.Free, "held", levels.Held, "sold", levels.Sold)
}

// round visits every pool once and returns how long Run may sleep.
func (s *Store) round(ctx context.Context) time.Duration {
	nap := longestNap
	s.pools.Range(func(part, v any) bool {
		p := v.(*pool)
		wait, err := s.visit(ctx, p)
		switch {
		case errors.Is(err, stock.ErrRetired):
			s.pools.Delete(part)
		case err != nil && ctx.Err() == nil && !errors.Is(err, stock.ErrFenced):
			s.opts.Logger.WarnContext(ctx, "stock: sweep failed", "sku", p.opened.SKU, "error", err)
		}
		nap = min(nap, max(wait, time.Millisecond))
		return ctx.Err() == nil
	})
	return nap
}

// visit does what there is to do for a pool.
func (s *Store) visit(ctx context.Context, p *pool) (time.Duration, error) {
	p.chores.mu.Lock() // against another Run of this process
	defer p.chores.mu.Unlock()
	wait, err := s.sweep(ctx, p)
	if err != nil {
		return wait, err
	}
	if err := s.saveMark(ctx, p); err != nil {
		return wait, err
	}
	if err := s.followTerms(ctx, p); err != nil {
		return wait, err
	}
	more, err := s.forget(ctx, p)
	if more {
		wait = min(wait, forgetPause)
	}
	return wait, err
}

// saveMark tells the ledger how far the pool has come, where that is news.
func (s *Store) saveMark(ctx context.Context, p *pool) error {
	if s.ledger == nil {
		return nil
	}
	p.mu.Lock()
	mark, saved := p.mark, p.saved
	p.mu.Unlock()
	if mark == saved {
		return nil
	}
	if err := s.ledger.SaveMark(ctx, p.opened.SKU, mark); err != nil {
		return fmt.Errorf("save mark: %w", err)
	}
	p.mu.Lock()
	p.saved = mark
	p.mu.Unlock()
	return nil
}
