package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/stock"
)

// maxBatch bounds the IDs in one statement of Expire.
const maxBatch = 512

// voidRow is a row of the void statement.
const voidRow = `(?, ?, '', 0, 0, 0, 0, 'void', '', '', 0)`

// Expire implements [stock.Ledger].
func (l *Ledger) Expire(ctx context.Context, sku string, ids []stock.ID) ([]stock.Verdict, error) {
	if err := checkPool(sku, ids); err != nil {
		return nil, fmt.Errorf("expire: %w", err)
	}
	e := &expiry{
		ledger: l, sku: sku, verdicts: make(map[stock.ID]stock.Verdict, len(ids)),
		waits: maxWaits,
	}
	for todo := sortedIDs(ids); len(todo) > 0; {
		n := min(len(todo), maxBatch)
		if err := e.decide(ctx, todo[:n], l.wait); err != nil {
			return nil, fmt.Errorf("expire: %w", err)
		}
		todo = todo[n:]
	}
	verdicts := make([]stock.Verdict, len(ids))
	for i, id := range ids {
		verdicts[i] = e.verdicts[id] // [stock.Undecided] where there is none
	}
	return verdicts, nil
}

// expiry is one call of Expire.
type expiry struct {
	ledger   *Ledger
	sku      string
	verdicts map[stock.ID]stock.Verdict
	waits    int // in vain, that are left; then the rest stays undecided
}

// maxWaits bounds how often a call waits in vain: once for the whole, 90 times
// for a tenth as long.
const maxWaits = 91

// decide decides what it can of the sorted IDs. One that an open transaction
// holds up stops its whole batch, so the batch is halved until it is alone.
func (e *expiry) decide(ctx context.Context, ids []stock.ID, wait time.Duration) error {
	if e.waits <= 0 {
		return nil
	}
	verdicts, err := e.ledger.expireBatch(ctx, e.sku, ids, wait)
	if err == nil {
		maps.Copy(e.verdicts, verdicts)
		return nil
	}
	if !IsRetryable(err) {
		return err
	}
	// SQLite has one lock for all: a smaller batch would wait for the same.
	e.waits--
	if len(ids) == 1 || e.ledger.dialect == sqldialect.SQLite || e.waits <= 0 {
		return nil
	}
	narrow := max(e.ledger.wait/10, time.Millisecond)
	half := len(ids) / 2
	if err := e.decide(ctx, ids[:half], narrow); err != nil {
		return err
	}
	return e.decide(ctx, ids[half:], narrow)
}

// expireBatch decides all of the IDs in one transaction, or none.
func (l *Ledger) expireBatch(ctx context.Context, sku string, ids []stock.ID, wait time.Duration) (map[stock.ID]stock.Verdict, error) {
	var verdicts map[stock.ID]stock.Verdict
	err := l.inPatientTx(ctx, wait, func(tx Executor, q *statements) error {
		rows, err := l.claim(ctx, tx, q, sku, ids)
		if err != nil {
			return err
		}
		verdicts, err = l.judge(ctx, tx, q, sku, rows)
		return err
	})
	return verdicts, err
}

// claim returns the IDs' rows, locked, after it has made a void one for each
// that had none. From then on no order can be placed under those. Rows that
// stand are locked first, so that two callers never hold a duplicate in share
// mode that both want to change (InnoDB).
func (l *Ledger) claim(ctx context.Context, tx Executor, q *statements, sku string, ids []stock.ID) (map[stock.ID]row, error) {
	rows := make(map[stock.ID]row, len(ids))
	for todo := ids; ; { // again only where one was placed in between
		found, err := l.lockAll(ctx, tx, q.lockRows, todo)
		if err != nil {
			return nil, err
		}
		maps.Copy(rows, found)
		missing := slices.DeleteFunc(slices.Clone(todo), func(id stock.ID) bool {
			_, ok := rows[id]
			return ok
		})
		if len(missing) == 0 {
			return rows, nil
		}
		// It waits for an open transaction that has inserted one of them.
		n, err := l.insertVoid(ctx, tx, q, sku, missing)
		if err != nil {
			return nil, err
		}
		if n == int64(len(missing)) {
			for _, id := range missing {
				rows[id] = row{id: id, sku: sku, state: void}
			}
			return rows, nil
		}
		todo = missing
	}
}

// insertVoid makes void rows and returns how many there are new.
func (l *Ledger) insertVoid(ctx context.Context, tx Executor, q *statements, sku string, ids []stock.ID) (int64, error) {
	ids = padded(ids)
	args := make([]any, 0, 2*len(ids))
	for _, id := range ids {
		args = append(args, id.String(), sku)
	}
	n, err := affected(ctx, tx, l.list(q.void, voidRow, len(ids)), args...)
	if err != nil {
		return 0, fmt.Errorf("insert void rows: %w", err)
	}
	return n, nil
}

// judge gives the verdicts and moves the rows that lose their units.
func (l *Ledger) judge(ctx context.Context, tx Executor, q *statements, sku string, rows map[stock.ID]row) (map[stock.ID]stock.Verdict, error) {
	keep := false
	for _, r := range rows {
		if r.state == held { // so there is a pool
			y, err := l.layout(ctx, tx, sku)
			if err != nil {
				return nil, err
			}
			keep = y.pool.Unpaid == stock.KeepUnits
			break
		}
	}
	verdicts := make(map[stock.ID]stock.Verdict, len(rows))
	var lost []stock.ID
	for id, r := range rows {
		switch {
		case r.state == sold:
			verdicts[id] = stock.IsSold
		case r.state == held && keep:
			verdicts[id] = stock.Keep
		case r.state == held:
			verdicts[id] = stock.Free
			lost = append(lost, id)
		default:
			verdicts[id] = stock.Free
		}
	}
	if len(lost) == 0 {
		return verdicts, nil
	}
	list := padded(lost)
	args := append(append([]any{string(expired)}, texts(list)...), string(held))
	n, err := affected(ctx, tx, l.list(q.setStates, "?", len(list)), args...)
	if err != nil {
		return nil, fmt.Errorf("expire the orders: %w", err)
	}
	if n != int64(len(lost)) {
		return nil, errors.New("expire the orders: a locked reservation has changed")
	}
	return verdicts, nil
}

// inPatientTx runs work in a transaction that waits for no lock longer than
// wait; each database has its own way of saying so.
func (l *Ledger) inPatientTx(ctx context.Context, wait time.Duration, work func(tx Executor, q *statements) error) error {
	switch l.dialect {
	case sqldialect.SQLite:
		return l.inPatientSQLite(ctx, wait, work)
	case sqldialect.MySQL:
		return l.inPatientMySQL(ctx, wait, work)
	default:
		return sqldialect.InTx(ctx, l.db, l.isolation(), func(tx *sql.Tx) error {
			limit := fmt.Sprintf("%dms", max(1, wait.Milliseconds())) // 0 would be no limit
			if _, err := tx.ExecContext(ctx, l.q.setWait, limit); err != nil {
				return fmt.Errorf("bound the wait: %w", err)
			}
			return work(tx, &l.q)
		})
	}
}
