package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/stock"
)

// Open implements [stock.Ledger].
func (l *Ledger) Open(ctx context.Context, p stock.Pool) (mark stock.Mark, existed bool, err error) {
	p, err = p.Normalize()
	if err != nil {
		return stock.Mark{}, false, fmt.Errorf("open pool: %w", err)
	}
	stripes := max(1, min(int64(l.stripes), p.Total/unitsPerStripe))
	err = l.InTx(ctx, func(tx *sql.Tx) error {
		n, err := affected(ctx, tx, l.q.insertPool, p.SKU, 1, stripes)
		if err != nil {
			return fmt.Errorf("insert the pool: %w", err)
		}
		if existed = n == 0; existed {
			return nil
		}
		return l.insertTerms(ctx, tx, p, stripes)
	})
	if err != nil {
		return stock.Mark{}, false, fmt.Errorf("open pool: %w", err)
	}
	if !existed {
		return stock.Mark{Epoch: 1}, false, nil
	}
	was, mark, err := l.Pool(ctx, p.SKU)
	if err != nil {
		return stock.Mark{}, true, fmt.Errorf("open pool: %w", err)
	}
	if was.Total != p.Total || was.Limit != p.Limit || was.Hold != p.Hold ||
		!was.Opens.Equal(p.Opens) || !was.Closes.Equal(p.Closes) {
		return mark, true, fmt.Errorf("open pool: %w", stock.ErrPoolExists)
	}
	return mark, true, nil
}

// insertTerms writes what belongs to a new pool, in the transaction that made
// its row.
func (l *Ledger) insertTerms(ctx context.Context, tx Executor, p stock.Pool, stripes int64) error {
	_, err := tx.ExecContext(ctx, l.q.insertTerms,
		p.SKU, p.Total, p.Limit, p.Hold.Milliseconds(), milliseconds(p.Opens), milliseconds(p.Closes))
	if err != nil {
		return fmt.Errorf("insert the terms: %w", err)
	}
	if _, err := tx.ExecContext(ctx, l.q.insertMark, p.SKU, 1); err != nil {
		return fmt.Errorf("insert the mark: %w", err)
	}
	for i := range stripes {
		share := p.Total / stripes
		if i < p.Total%stripes {
			share++
		}
		if _, err := tx.ExecContext(ctx, l.q.insertStripe, p.SKU, i, share); err != nil {
			return fmt.Errorf("insert a stripe: %w", err)
		}
	}
	return nil
}

// Pool implements [stock.Ledger].
func (l *Ledger) Pool(ctx context.Context, sku string) (stock.Pool, stock.Mark, error) {
	p := stock.Pool{SKU: sku}
	var mark stock.Mark
	var hold int64
	var opens, closes sql.NullInt64
	err := one(ctx, l.db, l.q.readPool, []any{sku},
		[]any{&p.Total, &p.Limit, &hold, &opens, &closes, &mark.Epoch, &mark.Seq})
	if errors.Is(err, errNoRow) {
		return stock.Pool{}, stock.Mark{}, fmt.Errorf("read pool: %w", stock.ErrUnknownSKU)
	}
	if err != nil {
		return stock.Pool{}, stock.Mark{}, fmt.Errorf("read pool: %w", err)
	}
	p.Hold = time.Duration(hold) * time.Millisecond
	p.Opens, p.Closes = timeOf(opens), timeOf(closes)
	return p, mark, nil
}

// SaveMark implements [stock.Ledger].
func (l *Ledger) SaveMark(ctx context.Context, sku string, m stock.Mark) error {
	if _, err := l.db.ExecContext(ctx, l.q.saveMark, m.Seq, sku, m.Epoch, m.Seq); err != nil {
		return fmt.Errorf("save mark: %w", err)
	}
	return nil
}

// RaiseEpoch implements [stock.Ledger]. It waits for the order transactions
// that are open in the old epoch, as long as ctx allows; new ones are refused
// with [stock.ErrFenced] meanwhile. Should it fail then, they stay refused until
// a later call succeeds.
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
	_, mark, err = l.Pool(ctx, sku)
	if err != nil {
		return stock.Mark{}, false, fmt.Errorf("raise epoch: %w", err)
	}
	return mark, false, nil
}

// isolation is what the ledger's own transactions ask for. SQLite knows one
// level only.
func (l *Ledger) isolation() *sql.TxOptions {
	if l.dialect == sqldialect.SQLite {
		return nil
	}
	return &sql.TxOptions{Isolation: sql.LevelReadCommitted}
}

func milliseconds(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: !t.IsZero()}
}

func timeOf(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64)
}
