package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/stock"
)

// Open implements [stock.Ledger].
func (l *Ledger) Open(ctx context.Context, p stock.Pool) (terms stock.Terms, mark stock.Mark, existed bool, err error) {
	terms, mark, existed, err = l.open(ctx, p)
	if err != nil {
		err = fmt.Errorf("open pool: %w", err)
	}
	return terms, mark, existed, err
}

func (l *Ledger) open(ctx context.Context, p stock.Pool) (terms stock.Terms, mark stock.Mark, existed bool, err error) {
	p, err = p.Normalize()
	if err != nil {
		return stock.Terms{}, stock.Mark{}, false, err
	}
	terms = stock.Terms{Pool: p, Version: 1}
	y := &layout{pool: p}
	for i := range y.items() {
		y.stripes = max(y.stripes, stripesFor(int64(l.stripes), y.totalOf(i)))
	}
	err = l.InTx(ctx, func(tx *sql.Tx) error {
		n, err := affected(ctx, tx, l.q.insertPool, p.SKU, 1, y.stripes)
		if err != nil {
			return fmt.Errorf("insert the pool: %w", err)
		}
		if existed = n == 0; existed {
			return nil
		}
		return l.insertTerms(ctx, tx, y, terms)
	})
	if err != nil {
		return stock.Terms{}, stock.Mark{}, false, err
	}
	if !existed {
		l.layouts.Store(p.SKU, y)
		return terms, stock.Mark{Epoch: 1}, false, nil
	}
	was, err := l.readPool(ctx, l.db, p.SKU)
	switch {
	case err != nil:
		return stock.Terms{}, stock.Mark{}, true, err
	case was.terms.Retired:
		return was.terms, was.mark, true, stock.ErrRetired
	case !was.layout.pool.Same(&p):
		return was.terms, was.mark, true, stock.ErrPoolExists
	default:
		return was.terms, was.mark, true, nil
	}
}

// maxStripesInsert bounds the stripes in one statement.
const maxStripesInsert = 512

// insertTerms writes what belongs to a new pool, in the transaction that made
// its row.
func (l *Ledger) insertTerms(ctx context.Context, tx Executor, y *layout, terms stock.Terms) error {
	text, err := encodeTerms(terms)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, l.q.insertTerms, terms.SKU, terms.Version, text, text); err != nil {
		return fmt.Errorf("insert the terms: %w", err)
	}
	if _, err := tx.ExecContext(ctx, l.q.insertMark, terms.SKU, 1); err != nil {
		return fmt.Errorf("insert the mark: %w", err)
	}
	if err := execIf(ctx, tx, l.q.insertGates, terms.SKU, 1); err != nil {
		return fmt.Errorf("insert the gates: %w", err)
	}
	var args []any
	for item := range y.items() {
		stripes := y.stripesOf(item)
		for i := range stripes {
			args = append(args, terms.SKU, item, i, evenShare(y.totalOf(item), stripes, i))
		}
	}
	const row = `(?, ?, ?, ?)`
	for some := range slices.Chunk(args, 4*maxStripesInsert) {
		if _, err := tx.ExecContext(ctx, l.list(l.q.insertStripes, row, len(some)/4), some...); err != nil {
			return fmt.Errorf("insert the stripes: %w", err)
		}
	}
	return nil
}

// execIf runs a statement that not every dialect needs.
func execIf(ctx context.Context, tx Executor, query string, args ...any) error {
	if query == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, query, args...)
	return err
}

// evenShare is the i-th of n shares that differ by one at most and sum up to
// the whole.
func evenShare(whole, n, i int64) int64 {
	if i < whole%n {
		return whole/n + 1
	}
	return whole / n
}

// poolRows is what the tables say of a pool.
type poolRows struct {
	terms  stock.Terms
	mark   stock.Mark
	layout *layout
}

// readPool returns them as of one moment, or [stock.ErrUnknownSKU].
func (l *Ledger) readPool(ctx context.Context, tx Executor, sku string) (poolRows, error) {
	var p poolRows
	var version, stripes int64
	var terms, opened []byte
	var retired bool
	err := one(ctx, tx, l.q.readPool, []any{sku},
		[]any{&version, &terms, &opened, &p.mark.Epoch, &p.mark.Seq, &stripes, &retired})
	if errors.Is(err, errNoRow) {
		return poolRows{}, stock.ErrUnknownSKU
	}
	if err != nil {
		return poolRows{}, fmt.Errorf("read the pool: %w", err)
	}
	if p.terms, err = decodeTerms(sku, terms); err != nil {
		return poolRows{}, err
	}
	p.terms.Version, p.terms.Retired = version, retired
	was, err := decodeTerms(sku, opened)
	if err != nil {
		return poolRows{}, err
	}
	p.layout = &layout{pool: was.Pool, stripes: stripes}
	l.layouts.Store(sku, p.layout)
	return p, nil
}

// Pool implements [stock.Ledger].
func (l *Ledger) Pool(ctx context.Context, sku string) (stock.Terms, stock.Mark, error) {
	p, err := l.readPool(ctx, l.db, sku)
	if err != nil {
		return stock.Terms{}, stock.Mark{}, fmt.Errorf("read pool: %w", err)
	}
	return p.terms, p.mark, nil
}

// SaveMark implements [stock.Ledger].
func (l *Ledger) SaveMark(ctx context.Context, sku string, m stock.Mark) error {
	if _, err := l.db.ExecContext(ctx, l.q.saveMark, m.Seq, sku, m.Epoch, m.Seq); err != nil {
		return fmt.Errorf("save mark: %w", err)
	}
	return nil
}

// RaiseEpoch implements [stock.Ledger]; a retired pool is [stock.ErrRetired]. It
// waits for the order transactions that are open in the old epoch, as long as
// ctx allows; new ones are refused with [stock.ErrFenced] meanwhile. Should it
// fail then, they stay refused until a later call succeeds.
func (l *Ledger) RaiseEpoch(ctx context.Context, sku string, from int64) (mark stock.Mark, raised bool, err error) {
	if l.q.endMark != "" {
		if _, err := l.db.ExecContext(ctx, l.q.endMark, from, sku, from, from); err != nil {
			return stock.Mark{}, false, fmt.Errorf("raise epoch: stop new orders: %w", err)
		}
	}
	err = l.InTx(ctx, func(tx *sql.Tx) error {
		n, err := affected(ctx, tx, l.q.raiseEpoch, from+1, sku, from)
		if err != nil {
			return fmt.Errorf("update the pool: %w", err)
		}
		if raised = n == 1; !raised {
			return nil
		}
		if err := execIf(ctx, tx, l.q.raiseGates, from+1, sku); err != nil {
			return fmt.Errorf("update the gates: %w", err)
		}
		if _, err := tx.ExecContext(ctx, l.q.raiseMark, from+1, sku); err != nil {
			return fmt.Errorf("reset the mark: %w", err)
		}
		return nil
	})
	if err != nil {
		return stock.Mark{}, false, fmt.Errorf("raise epoch: %w", err)
	}
	if raised {
		return stock.Mark{Epoch: from + 1}, true, nil
	}
	terms, mark, err := l.Pool(ctx, sku)
	if err == nil && terms.Retired {
		err = stock.ErrRetired
	}
	if err != nil {
		return stock.Mark{}, false, fmt.Errorf("raise epoch: %w", err)
	}
	return mark, false, nil
}

// Retire implements [stock.Ledger]. It waits for the order transactions that
// are open, as long as ctx allows, and orders that come meanwhile may wait for
// it: those that commit first are held, so that the pool is still
// [stock.ErrInUse]; those that come later are [stock.ErrRetired]. Retiring twice
// is success. What was sold can still be returned, and asked for.
func (l *Ledger) Retire(ctx context.Context, sku string) error {
	// First without the pool's lock, so as not to hold up one that sells.
	err := l.noneHeld(ctx, l.db, sku)
	if err == nil {
		err = l.InTx(ctx, func(tx *sql.Tx) error {
			n, err := affected(ctx, tx, l.q.retire, sku)
			if err != nil {
				return fmt.Errorf("update the pool: %w", err)
			}
			if n == 1 {
				if err := execIf(ctx, tx, l.q.retireGates, sku); err != nil {
					return fmt.Errorf("update the gates: %w", err)
				}
				return l.noneHeld(ctx, tx, sku)
			}
			_, err = l.readPool(ctx, tx, sku) // retired before, if it is there
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("retire pool: %w", err)
	}
	return nil
}

// noneHeld returns [stock.ErrInUse] where an order is held.
func (l *Ledger) noneHeld(ctx context.Context, tx Executor, sku string) error {
	after, last := poolRange(sku)
	var found int64
	err := one(ctx, tx, l.q.someHeld, []any{after.String(), last.String(), sku}, []any{&found})
	switch {
	case errors.Is(err, errNoRow):
		return nil
	case err != nil:
		return fmt.Errorf("look for orders: %w", err)
	default:
		return stock.ErrInUse
	}
}

// isolation is what the ledger's own transactions ask for. SQLite knows one
// level only.
func (l *Ledger) isolation() *sql.TxOptions {
	if l.dialect == sqldialect.SQLite {
		return nil
	}
	return &sql.TxOptions{Isolation: sql.LevelReadCommitted}
}
