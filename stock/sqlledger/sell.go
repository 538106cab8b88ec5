package sqlledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/firstcome/firstcome/stock"
)

// Sell makes an order final, inside the transaction that marks it as paid: the
// row moves from held to sold, and its units are counted. Selling twice is
// success and counts once. It does not look at the clock: as long as nobody
// has expired the row, its units are the order's.
//
// The refusals change nothing:
//   - [stock.ErrLedger]: the units are gone. The store has promised more than
//     there is, so it has lost writes; pay the buyer back.
//   - [stock.ErrExpired], [stock.ErrCancelled]: the order ended before. Pay back.
//   - [stock.ErrTooLate]: it was sold and returned before.
//   - [stock.ErrNotFound]: no order was placed under this ID.
//
// After the commit follow up with [stock.Store.Confirm].
func (l *Ledger) Sell(ctx context.Context, tx Executor, id stock.ID) error {
	done, err := l.sellAtOnce(ctx, tx, id)
	if err == nil && !done {
		err = l.sell(ctx, tx, id)
	}
	if err != nil {
		return fmt.Errorf("sell: %w", err)
	}
	return nil
}

// sellAtOnce sells where the dialect can do so in one round trip and finds
// room. Where it has not sold, it has changed nothing.
func (l *Ledger) sellAtOnce(ctx context.Context, tx Executor, id stock.ID) (bool, error) {
	switch {
	case l.tight.is(id.PoolPart()):
		return false, nil
	case l.q.sellOneReturning != "":
		return l.sellReturning(ctx, tx, id)
	case l.q.sellOneOrNone != "":
		n, err := affected(ctx, tx, l.q.sellOneOrNone, id.String())
		if err == nil && n != 0 && n != 2 { // the row and its stripe
			err = fmt.Errorf("%d rows changed, want 2 or none", n)
		}
		return n == 2, err
	default:
		return false, nil
	}
}

// sellReturning moves the row at once, and back if nothing is left for it.
func (l *Ledger) sellReturning(ctx context.Context, tx Executor, id stock.ID) (bool, error) {
	var r row
	var counted int64
	err := one(ctx, tx, l.q.sellOneReturning, []any{id.String()}, []any{&r.sku, &r.stripe, &r.quantity, &counted})
	switch {
	case errors.Is(err, errNoRow):
		return false, nil
	case err != nil || counted == 1:
		return true, err
	}
	_, err = l.take(ctx, tx, r.sku, r.stripe, r.quantity)
	if errors.Is(err, stock.ErrLedger) {
		err = errors.Join(err, l.setState(ctx, tx, id, sold, held))
	}
	return true, err
}

// sell is Sell step by step: where there is no single statement for it, and
// where that has changed nothing.
func (l *Ledger) sell(ctx context.Context, tx Executor, id stock.ID) error {
	r, err := l.lock(ctx, tx, id)
	if err != nil {
		return err
	}
	if r.state == sold {
		return nil
	}
	if r.state != held {
		return r.state.ended()
	}
	if _, err := l.take(ctx, tx, r.sku, r.stripe, r.quantity); err != nil {
		return err
	}
	return l.setState(ctx, tx, id, held, sold)
}

// SellAll is [Ledger.Sell] for several reservations, of one pool or more, all
// or nothing. It locks rows and stripes in one order for all callers, whatever
// the order of ids, so that two baskets don't deadlock. The error is that of
// the first ID, in this order, which can't be sold.
func (l *Ledger) SellAll(ctx context.Context, tx Executor, ids ...stock.ID) error {
	ids = sortedIDs(ids)
	if len(ids) < 2 {
		for _, id := range ids {
			return l.Sell(ctx, tx, id)
		}
		return nil
	}
	rows, err := l.lockAll(ctx, tx, l.q.lockRows, ids)
	if err != nil {
		return fmt.Errorf("sell all: %w", err)
	}
	var left []row
	for i, id := range ids {
		r, ok := rows[id]
		switch {
		case !ok:
			return fmt.Errorf("sell all: reservation %d of %d: %w", i+1, len(ids), stock.ErrNotFound)
		case r.state == sold:
		case r.state == held:
			left = append(left, r)
		default:
			return fmt.Errorf("sell all: reservation %d of %d: %w", i+1, len(ids), r.state.ended())
		}
	}
	if err := l.takeAll(ctx, tx, left); err != nil {
		return fmt.Errorf("sell all: %w", err)
	}
	for _, r := range left {
		if err := l.setState(ctx, tx, r.id, held, sold); err != nil {
			return fmt.Errorf("sell all: %w", err)
		}
	}
	return nil
}

// takeAll takes the units of all rows, stripe after stripe, or none.
func (l *Ledger) takeAll(ctx context.Context, tx Executor, rows []row) error {
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.sku, b.sku), cmp.Compare(a.stripe, b.stripe), compareIDs(a.id, b.id))
	})
	var taken []part
	for _, r := range rows {
		parts, err := l.takeOwn(ctx, tx, r)
		if err == nil {
			taken = append(taken, parts...)
			continue
		}
		if errors.Is(err, stock.ErrLedger) {
			err = errors.Join(err, l.undo(ctx, tx, taken))
		}
		return err
	}
	return nil
}

// takeOwn waits for the row's own stripe, so that all wait in the same order,
// and looks elsewhere only if that is full.
func (l *Ledger) takeOwn(ctx context.Context, tx Executor, r row) ([]part, error) {
	if ok, err := l.move(ctx, tx, r.sku, r.stripe, r.quantity); err != nil || ok {
		return []part{{r.sku, r.stripe, r.quantity}}, err
	}
	return l.take(ctx, tx, r.sku, r.stripe, r.quantity)
}

// lock returns a row and keeps others from changing it until the transaction
// ends, or [stock.ErrNotFound].
func (l *Ledger) lock(ctx context.Context, tx Executor, id stock.ID) (row, error) {
	r, err := l.oneRow(ctx, tx, l.q.lockRow, id)
	if errors.Is(err, errNoRow) {
		return row{}, stock.ErrNotFound
	}
	if err != nil {
		return row{}, fmt.Errorf("lock the reservation: %w", err)
	}
	return r, nil
}

// lockAll is lock for sorted IDs, by the statement given. What is not found is
// missing from the map.
func (l *Ledger) lockAll(ctx context.Context, tx Executor, lockRows string, ids []stock.ID) (map[stock.ID]row, error) {
	ids = padded(ids)
	rows, err := l.rows(ctx, tx, l.list(lockRows, "?", len(ids)), texts(ids)...)
	if err != nil {
		return nil, fmt.Errorf("lock the reservations: %w", err)
	}
	found := make(map[stock.ID]row, len(rows))
	for _, r := range rows {
		found[r.id] = r
	}
	return found, nil
}

// setState moves a row that the transaction has locked.
func (l *Ledger) setState(ctx context.Context, tx Executor, id stock.ID, old, new state) error {
	n, err := affected(ctx, tx, l.q.setState, string(new), id.String(), string(old))
	if err != nil {
		return fmt.Errorf("set the state: %w", err)
	}
	if n != 1 {
		return fmt.Errorf("set the state: a locked reservation is no longer %s", old)
	}
	return nil
}
