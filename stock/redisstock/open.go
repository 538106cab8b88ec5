package redisstock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Open implements [stock.Store]. With a ledger, the pool is recorded there
// first; a process that dies between the two leaves a fenced pool, which
// Rebuild opens.
func (s *Store) Open(ctx context.Context, p stock.Pool) (stock.Levels, error) {
	p, err := p.Normalize()
	if err != nil {
		return stock.Levels{}, err
	}
	if s.ledger == nil {
		return s.create(ctx, p, stock.Mark{}, true)
	}
	mark, existed, err := s.ledger.Open(ctx, p)
	if err != nil {
		return stock.Levels{}, fmt.Errorf("open in ledger: %w", err)
	}
	levels, err := s.create(ctx, p, mark, !existed)
	if existed && errors.Is(err, stock.ErrFenced) {
		// Another process may be between the two steps at this moment.
		return s.awaitPool(ctx, p, mark)
	}
	return levels, err
}

// openPatience is how long Open waits for another process that has recorded
// the pool and not yet created it.
const openPatience = time.Second

func (s *Store) awaitPool(ctx context.Context, p stock.Pool, mark stock.Mark) (stock.Levels, error) {
	end := time.Now().Add(openPatience)
	for {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return stock.Levels{}, err
		}
		levels, err := s.create(ctx, p, mark, false)
		if !errors.Is(err, stock.ErrFenced) || time.Now().After(end) {
			return levels, err
		}
		if _, now, err := s.ledger.Pool(ctx, p.SKU); err == nil {
			mark = now
		}
	}
}

// create runs open.lua and makes the pool known to this process.
func (s *Store) create(ctx context.Context, p stock.Pool, mark stock.Mark, missing bool) (stock.Levels, error) {
	part := partOf(p.SKU)
	flag := "0"
	if missing {
		flag = "1"
	}
	args := append([]any{mark.Epoch, flag, s.ledgerFlag()}, terms(p)...)
	raw, err := s.runner.RunNow(ctx, s.scripts.open, keysOf(s.opts.Prefix, part), args...)
	if err != nil {
		return stock.Levels{}, unknown("open", err)
	}
	list, _ := raw.([]any)
	if len(list) == 0 {
		return stock.Levels{}, fmt.Errorf("redisstock: unexpected reply %T", raw)
	}
	switch status := toString(list[0]); status {
	case "created", "same":
		seen := stock.Mark{Epoch: toInt(list[1]), Seq: toInt(list[2])}
		if s.ledger != nil && seen.Seq < mark.Seq {
			s.adopt(part, p.SKU, mark)
			return stock.Levels{}, stock.ErrFenced // the server has lost writes that the ledger heard of
		}
		h := s.adopt(part, p.SKU, seen)
		h.sawOpen(seen, s.ledger == nil)
		return stock.Levels{SKU: p.SKU, Total: toInt(list[3]), Free: toInt(list[4]), Held: toInt(list[5]), Sold: toInt(list[6])}, nil
	case "other":
		return stock.Levels{}, stock.ErrPoolExists
	case "missing", "fenced":
		if s.ledger != nil {
			s.adopt(part, p.SKU, mark)
		}
		return stock.Levels{}, stock.ErrFenced
	case "version":
		return stock.Levels{}, fmt.Errorf("redisstock: the pool's format is version %v, this build knows 1", list[1])
	default:
		return stock.Levels{}, fmt.Errorf("redisstock: unexpected reply %q", status)
	}
}

// sawOpen takes over the mark of an opened pool. Without a ledger nobody can
// say which of two epochs is right, so opening anew is what accepts it.
func (p *pool) sawOpen(m stock.Mark, accept bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if accept && p.mark.Epoch != m.Epoch {
		p.mark = m
		p.reopen()
	}
}

// terms are a pool's settings as the scripts take them.
func terms(p stock.Pool) []any {
	return []any{p.SKU, p.Total, p.Limit, p.Hold.Milliseconds(), millis(p.Opens), millis(p.Closes)}
}

// Levels implements [stock.Store].
func (s *Store) Levels(ctx context.Context, sku string) (stock.Levels, error) {
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return stock.Levels{}, err
	}
	r, err := s.call(ctx, p, true, s.scripts.levels)
	if err != nil {
		return stock.Levels{}, err
	}
	if len(r.rest) < 4 {
		return stock.Levels{}, errors.New("redisstock: short reply")
	}
	return stock.Levels{SKU: sku, Total: toInt(r.rest[0]), Free: toInt(r.rest[1]), Held: toInt(r.rest[2]), Sold: toInt(r.rest[3])}, nil
}

// pause waits, or returns the reason why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
