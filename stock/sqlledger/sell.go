package sqlledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/firstcome/firstcome/stock"
)

// Sell makes an order final, inside the transaction that marks it as paid: the
// row moves from held to sold, and its units are counted. With a part only that
// is sold, and the order gives up the rest in the same step; for a pool without
// Items a part is one line, whose SKU may be empty. Of a pool with Items all
// that is sold is counted, or nothing.
//
// Selling the same twice is success and counts once. It does not look at the
// clock: as long as nobody has expired the row, its units are the order's.
//
// The refusals change nothing:
//   - [stock.ErrLedger]: the units are gone. The store has promised more than
//     there is, so it has lost writes; pay the buyer back. In a pool with Items
//     it is an [*stock.ItemError] that names the SKU.
//   - [stock.ErrExpired], [stock.ErrCancelled]: the order ended before. Pay back.
//   - [stock.ErrTooLate]: it was sold and returned before.
//   - [stock.ErrNotFound]: no order was placed under this ID.
//   - [*stock.MismatchError]: another part was sold before (or all of it), or the
//     part is more than was ordered.
//   - [*stock.ItemError] with [stock.ErrUnknownSKU]: the part names an SKU that
//     the pool has not. [stock.ErrInvalid]: a quantity of it is not positive.
//
// After the commit follow up with [stock.Store.Confirm] of the same part.
func (l *Ledger) Sell(ctx context.Context, tx Executor, id stock.ID, part ...stock.Line) error {
	var done bool
	var err error
	if len(part) == 0 {
		done, err = l.sellAtOnce(ctx, tx, id)
	}
	if err == nil && !done {
		err = l.sell(ctx, tx, id, part)
	}
	if err != nil {
		return fmt.Errorf("sell: %w", err)
	}
	return nil
}

// sellAtOnce sells a whole row where the dialect can do so in one round trip,
// where it is of a pool without items, and where there is room. Where it has not
// sold, it has changed nothing.
func (l *Ledger) sellAtOnce(ctx context.Context, tx Executor, id stock.ID) (bool, error) {
	if l.q.sellAtOnce == "" || l.tight.is(id.PoolPart()) {
		return false, nil
	}
	n, err := affected(ctx, tx, l.q.sellAtOnce, id.String())
	if err == nil && n != 0 && n != l.q.soldAtOnce {
		err = fmt.Errorf("%d rows changed, want %d or none", n, l.q.soldAtOnce)
	}
	return n != 0, err
}

// sell is Sell step by step: where there is no single statement for it, and
// where that has changed nothing.
func (l *Ledger) sell(ctx context.Context, tx Executor, id stock.ID, part []stock.Line) error {
	r, err := l.lock(ctx, tx, id)
	if err != nil {
		return err
	}
	s, err := l.saleOf(ctx, tx, r, part)
	if err != nil || s.done() {
		return err
	}
	return l.sellRows(ctx, tx, []sale{s})
}

// sale is a row that is locked, and what of it is to be sold.
type sale struct {
	row
	layout      *layout
	whole, keep []int64 // per item
}

// done reports that it is sold already, and so that it is not held.
func (s *sale) done() bool { return s.state == sold }

// saleOf returns the sale of a part of the row, or of all where there is none;
// or why it can't be. A row that has given something up already (in the store,
// before it was placed; or when it was sold) can be sold as what is left only.
func (l *Ledger) saleOf(ctx context.Context, tx Executor, r row, part []stock.Line) (sale, error) {
	if r.state != held && r.state != sold {
		return sale{}, r.state.ended()
	}
	y, err := l.layout(ctx, tx, r.sku)
	if err != nil {
		return sale{}, err
	}
	asked, now, err := y.content(&r)
	if err != nil {
		return sale{}, err
	}
	keep := asked
	if len(part) > 0 {
		if keep, err = y.pool.Basket(part); err != nil {
			return sale{}, err
		}
	}
	for i, n := range keep {
		if n > asked[i] {
			return sale{}, y.mismatch()
		}
	}
	if (r.state == sold || r.releasedUnits > 0) && !slices.Equal(keep, now) {
		return sale{}, y.mismatch()
	}
	return sale{row: r, layout: y, whole: asked, keep: keep}, nil
}

// SellAll is [Ledger.Sell] for several reservations, each as a whole, of one
// pool or more, all or nothing. It locks rows and stripes in one order for all
// callers, whatever the order of ids, so that two baskets don't deadlock. The
// error is that of the first ID, in this order, which can't be sold.
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
	var left []sale
	for i, id := range ids {
		s, err := sale{}, stock.ErrNotFound
		if r, ok := rows[id]; ok {
			s, err = l.saleOf(ctx, tx, r, nil)
		}
		if err != nil {
			return fmt.Errorf("sell all: reservation %d of %d: %w", i+1, len(ids), err)
		}
		if !s.done() {
			left = append(left, s)
		}
	}
	if err := l.sellRows(ctx, tx, left); err != nil {
		return fmt.Errorf("sell all: %w", err)
	}
	return nil
}

// sellRows counts the units of all sales and moves their rows, or does nothing.
func (l *Ledger) sellRows(ctx context.Context, tx Executor, sales []sale) error {
	var want []units
	for i := range sales {
		want = append(want, sales[i].layout.units(&sales[i].row, sales[i].keep)...)
	}
	if err := l.takeAll(ctx, tx, want); err != nil {
		return err
	}
	for i := range sales {
		s := &sales[i]
		released := minus(s.whole, s.keep)
		n, err := affected(ctx, tx, l.q.sellRow, s.layout.column(released), sum(released), s.id.String())
		if err == nil && n != 1 {
			err = errors.New("a locked reservation is no longer held")
		}
		if err != nil {
			return fmt.Errorf("set the state: %w", err)
		}
	}
	return nil
}

// takeAll takes all units, stripe after stripe, or none.
func (l *Ledger) takeAll(ctx context.Context, tx Executor, want []units) error {
	if len(want) == 1 { // it waits for nothing else, so it may look first
		_, err := l.take(ctx, tx, want[0])
		return named(want[0].name, err)
	}
	slices.SortStableFunc(want, compareUnits)
	var taken []units
	for _, u := range want {
		some, err := l.takeOwn(ctx, tx, u)
		if err == nil {
			taken = append(taken, some...)
			continue
		}
		if errors.Is(err, stock.ErrLedger) {
			err = errors.Join(named(u.name, err), l.undo(ctx, tx, taken))
		}
		return err
	}
	return nil
}

// takeOwn waits for the units' own stripe, so that all wait in the same order,
// and looks elsewhere only if that is full.
func (l *Ledger) takeOwn(ctx context.Context, tx Executor, u units) ([]units, error) {
	if ok, err := l.move(ctx, tx, u); err != nil || ok {
		return []units{u}, err
	}
	return l.take(ctx, tx, u)
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
