package redisstock

import (
	"context"
	"errors"
	"fmt"

	"github.com/firstcome/firstcome/stock"
)

// Retire implements [stock.Store]. Without a ledger the keys answer
// [stock.ErrRetired] for Options.Retention, and are gone then.
func (s *Store) Retire(ctx context.Context, sku string) error {
	p, err := s.poolOf(ctx, sku)
	if errors.Is(err, stock.ErrRetired) { // an earlier try may have died before it deleted the keys
		return s.drop(ctx, partOf(sku))
	}
	if err != nil {
		return err
	}
	if err := s.end(ctx, p); err != nil {
		return fmt.Errorf("retire: %w", err)
	}
	if s.ledger != nil {
		if err := s.ledger.Retire(ctx, sku); err != nil {
			return fmt.Errorf("retire in ledger: %w", err)
		}
	}
	p.retired.Store(true)
	return s.drop(ctx, p.part)
}

// drop deletes the keys of a retired pool, but for what answers for it.
func (s *Store) drop(ctx context.Context, part [8]byte) error {
	if _, err := s.runner.RunNow(ctx, s.scripts.drop, keysOf(s.opts.Prefix, part), s.opts.Retention.Milliseconds()); err != nil {
		return unknown("retire: delete", err)
	}
	s.pools.Delete(part)
	return nil
}

// end refuses everything from now on, where the pool is over.
func (s *Store) end(ctx context.Context, p *pool) error {
	audit, err := s.Audit(ctx, p.opened.SKU)
	if errors.Is(err, stock.ErrRetired) {
		return nil // by an earlier try
	}
	if err != nil {
		return err
	}
	if !audit.Clean() {
		return fmt.Errorf("%w: its audit found %v", stock.ErrInUse, audit.Faults[0])
	}
	r, err := s.call(ctx, p, false, s.scripts.retire, 1)
	if errors.Is(err, stock.ErrRetired) {
		return nil
	}
	if err != nil {
		return err
	}
	switch verdict := toString(r.rest[0]); verdict {
	case "done":
		return nil
	case "open":
		return fmt.Errorf("%w: it is neither paused nor closed", stock.ErrInUse)
	case "held":
		return fmt.Errorf("%w: units are held", stock.ErrInUse)
	default:
		return fmt.Errorf("%w: its journal is not relayed", stock.ErrInUse)
	}
}
