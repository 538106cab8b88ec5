package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/firstcome/firstcome/stock"
)

// Adjust implements [stock.Ledger]. It waits for open transactions that have
// sold or returned units of the items whose totals change, as long as ctx
// allows, and never for those that have only placed orders. What is left of such
// an item is spread over its stripes anew.
//
// It looks at what is sold, and not at what is held: with fewer units than are
// held it is the last sales that are refused. In a pool with Items an
// [*stock.OverError] is inside an [*stock.ItemError] that names the SKU. The
// repeat of an adjustment finds it done until there is another; from then on it
// is [stock.ErrVersion], like any that was decided on an old version.
func (l *Ledger) Adjust(ctx context.Context, a stock.Adjustment) (stock.Terms, error) {
	err := a.Validate()
	var terms stock.Terms
	if err == nil {
		err = l.InTx(ctx, func(tx *sql.Tx) (err error) {
			terms, err = l.adjust(ctx, tx, &a)
			return err
		})
	}
	if err != nil {
		return stock.Terms{}, fmt.Errorf("adjust pool: %w", err)
	}
	return terms, nil
}

func (l *Ledger) adjust(ctx context.Context, tx Executor, a *stock.Adjustment) (stock.Terms, error) {
	var version int64
	err := one(ctx, tx, l.q.lockTerms, []any{a.SKU}, []any{&version})
	if errors.Is(err, errNoRow) {
		return stock.Terms{}, stock.ErrUnknownSKU
	}
	if err != nil {
		return stock.Terms{}, fmt.Errorf("lock the terms: %w", err)
	}
	now, err := l.readPool(ctx, tx, a.SKU)
	if err != nil {
		return stock.Terms{}, err
	}
	next, again, err := now.terms.Adjust(a)
	if err != nil || again {
		return next, err
	}
	for item := range now.layout.items() {
		if by := totalOf(&next.Pool, item) - totalOf(&now.terms.Pool, item); by != 0 {
			if err := l.resize(ctx, tx, now.layout, item, by); err != nil {
				return stock.Terms{}, err
			}
		}
	}
	text, err := encodeTerms(next)
	if err != nil {
		return stock.Terms{}, err
	}
	n, err := affected(ctx, tx, l.q.updateTerms, next.Version, text, a.SKU, a.Version)
	if err == nil && n != 1 {
		err = errors.New("locked ones have changed")
	}
	if err != nil {
		return stock.Terms{}, fmt.Errorf("update the terms: %w", err)
	}
	return next, nil
}

// resize adds units to an item's stripes, or takes them out, so that all have
// the same room afterwards. It returns an [*stock.OverError] where more are sold
// than would be left.
func (l *Ledger) resize(ctx context.Context, tx Executor, y *layout, item int, by int64) error {
	n := y.stripesOf(item)
	numbers := make([]any, n)
	for i := range numbers {
		numbers[i] = int64(i)
	}
	stripes, err := l.lockStripes(ctx, tx, y.pool.SKU, item, numbers)
	if err != nil {
		return err
	}
	if int64(len(stripes)) != n {
		return fmt.Errorf("lock the stripes: %d found, want %d", len(stripes), n)
	}
	room := by
	for _, s := range stripes {
		room += s.room()
	}
	if room < 0 {
		return named(y.name(item), &stock.OverError{By: -room})
	}
	for i, s := range stripes {
		total := s.sold + evenShare(room, n, int64(i))
		if total == s.total {
			continue
		}
		n, err := affected(ctx, tx, l.q.setTotal, total, y.pool.SKU, item, s.number, total)
		if err == nil && n != 1 {
			err = errors.New("a locked one has changed")
		}
		if err != nil {
			return fmt.Errorf("set a stripe's total: %w", err)
		}
	}
	return nil
}
