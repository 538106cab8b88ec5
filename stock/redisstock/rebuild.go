package redisstock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/firstcome/firstcome/stock"
)

const (
	rebuildPage     = 500
	rebuildPatience = 5 * time.Second // without a step of progress, another process' rebuild counts as dead
)

// errOvertaken says that another process' rebuild is ahead of this one.
var errOvertaken = errors.New("redisstock: another rebuild has begun")

// Rebuild implements [stock.Store]. The epoch is raised in the ledger first:
// from then on no order of the lost epoch can commit, so what the ledger holds
// is all there is.
func (s *Store) Rebuild(ctx context.Context, sku string) (stock.Levels, error) {
	if s.ledger == nil {
		return stock.Levels{}, fmt.Errorf("%w: there is no ledger to rebuild from", stock.ErrInvalid)
	}
	for {
		terms, mark, err := s.ledger.Pool(ctx, sku)
		if err != nil {
			return stock.Levels{}, fmt.Errorf("rebuild: %w", err)
		}
		if terms.Retired {
			return stock.Levels{}, stock.ErrRetired
		}
		p := s.adopt(partOf(sku), &terms.Pool, mark)
		if levels, ok := s.standing(ctx, p, mark); ok {
			return levels, nil
		}
		mark, raised, err := s.ledger.RaiseEpoch(ctx, sku, mark.Epoch)
		if err != nil {
			return stock.Levels{}, fmt.Errorf("rebuild: raise epoch: %w", err)
		}
		err = errOvertaken
		if raised {
			err = s.restore(ctx, p, &terms, mark.Epoch)
		}
		if errors.Is(err, errOvertaken) {
			// To raise it again at once would overtake the other in turn, for ever.
			err = s.awaitRebuild(ctx, p)
		}
		if err != nil {
			return stock.Levels{}, fmt.Errorf("rebuild: %w", err)
		}
	}
}

// standing reports whether the pool is open in the ledger's epoch and has lost
// nothing that is known of.
func (s *Store) standing(ctx context.Context, p *pool, mark stock.Mark) (stock.Levels, bool) {
	p.saw(mark)
	st, err := s.stateOf(ctx, p, false)
	return st.levels, err == nil && st.mark.Epoch == mark.Epoch
}

// awaitRebuild waits while the process that raised the epoch makes progress.
func (s *Store) awaitRebuild(ctx context.Context, p *pool) error {
	last, since := "", time.Now()
	for time.Since(since) < rebuildPatience {
		_, mark, err := s.ledger.Pool(ctx, p.opened.SKU)
		if err != nil {
			return err
		}
		if _, ok := s.standing(ctx, p, mark); ok {
			return nil
		}
		progress, err := s.client.HMGet(ctx, p.keys[poolKey], "m", "s").Result()
		if err != nil {
			return unknown("read progress", err)
		}
		if now := fmt.Sprint(progress...); now != last {
			last, since = now, time.Now()
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil // it seems dead: the next round raises the epoch again
}

// restore writes the pool anew, page by page; the pool opens with the last.
// Terms that are adjusted meanwhile are put right by [Store.Run].
func (s *Store) restore(ctx context.Context, p *pool, t *stock.Terms, epoch int64) error {
	opened, err := openedText(&t.Pool)
	if err != nil {
		return fmt.Errorf("redisstock: %w", err)
	}
	var zero, totals strings.Builder
	for _, item := range itemsOf(&t.Pool) {
		zero.WriteString("0,0,0;")
		fmt.Fprintf(&totals, "%d;", item.Total)
	}
	if err := s.restoreStep(ctx, p, epoch, 0, "begin", termsText(t, s.ledgerFlag()), opened, zero.String()); err != nil {
		return err
	}
	step, after := int64(1), stock.ID{}
	for {
		page, err := s.ledger.Entries(ctx, p.opened.SKU, after, rebuildPage)
		if err != nil {
			return fmt.Errorf("read entries: %w", err)
		}
		if len(page) == 0 {
			break
		}
		blob, err := packEntries(page, p.opened)
		if err != nil {
			return err
		}
		if err := s.restoreStep(ctx, p, epoch, step, "load", blob); err != nil {
			return err
		}
		after = page[len(page)-1].ID
		step++
	}
	if err := s.restoreStep(ctx, p, epoch, step, "end", totals.String()); err != nil {
		return err
	}
	p.saw(stock.Mark{Epoch: epoch})
	p.reopen()
	return nil
}

func (s *Store) restoreStep(ctx context.Context, p *pool, epoch, step int64, kind string, args ...any) error {
	raw, err := s.runner.RunNow(ctx, s.scripts.restore, p.keys, append([]any{epoch, step, kind}, args...)...)
	if err != nil {
		return unknown("restore "+kind, err)
	}
	list, _ := raw.([]any)
	if len(list) == 0 {
		return fmt.Errorf("redisstock: unexpected reply %T", raw)
	}
	if toString(list[0]) != "ok" {
		return errOvertaken
	}
	return nil
}

func packEntries(page []stock.Entry, p *stock.Pool) ([]byte, error) {
	blob := make([]byte, 0, 64*len(page))
	for i := range page {
		e := &page[i]
		text, err := entryAmount(e, p)
		if err != nil {
			return nil, fmt.Errorf("redisstock: entry %v: %w", e.ID, err)
		}
		blob = append(blob, e.ID[8:]...)
		if e.State == stock.Sold {
			blob = append(blob, 's')
		} else {
			blob = append(blob, 'h')
		}
		blob = append(blob, text...)
		blob = strconv.AppendInt(append(blob, ','), millis(e.Expires), 10)
		blob = append(blob, ';')
	}
	return blob, nil
}
