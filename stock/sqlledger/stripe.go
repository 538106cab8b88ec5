package sqlledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/firstcome/firstcome/stock"
)

// units are some of one item of a pool, and the stripe that counts them, or
// that is asked first to do so.
type units struct {
	name     string // the item's SKU, where the pool has several
	sku      string // the pool's
	item     int
	stripe   int64
	quantity int64
}

// on returns as many units on a stripe.
func (u units) on(stripe, quantity int64) units {
	u.stripe, u.quantity = stripe, quantity
	return u
}

// compareUnits is the order in which all callers lock.
func compareUnits(a, b units) int {
	return cmp.Or(cmp.Compare(a.sku, b.sku), cmp.Compare(a.item, b.item), cmp.Compare(a.stripe, b.stripe))
}

// stripe is one of an item's counters.
type stripe struct{ number, total, sold int64 }

func (s stripe) room() int64 { return s.total - s.sold }

// take counts units as sold, where the quick way did not: on the stripe of
// their own or the next with room, else split over several. It returns what it
// took where, or [stock.ErrLedger], having changed nothing, when it saw too
// little room.
func (l *Ledger) take(ctx context.Context, tx Executor, u units) ([]units, error) {
	// Without locks first: only a hint, but most often there is room. And a
	// full stripe is not tried: two sales that each keep one locked and then
	// want the other would deadlock.
	stripes, err := l.readStripes(ctx, tx, l.q.readStripes, u.sku, u.item)
	if err != nil {
		return nil, err
	}
	for _, s := range from(u.stripe, stripes) {
		if s.room() < u.quantity {
			l.tight.met(poolPart(u.sku))
			continue
		}
		here := u.on(s.number, u.quantity)
		if ok, err := l.tryMove(ctx, tx, here); err != nil || ok {
			return []units{here}, err
		}
	}
	return l.takeLocked(ctx, tx, u)
}

// takeLocked takes units where the others have left room. It locks the
// stripes that seem to have some, since only so can it know, until those that
// it has locked have enough, or those that are left (full when last seen) can't
// make up for what is missing.
func (l *Ledger) takeLocked(ctx context.Context, tx Executor, u units) ([]units, error) {
	locked := make(map[int64]stripe)
	for {
		stripes, err := l.readStripes(ctx, tx, l.q.readStripes, u.sku, u.item)
		if err != nil {
			return nil, err
		}
		var room, roomSure int64
		var sure []stripe
		var unsure []any
		for _, s := range stripes {
			if now, ok := locked[s.number]; ok {
				sure = append(sure, now) // newer than what an old snapshot shows
				roomSure += now.room()
				room += now.room()
			} else if s.room() > 0 {
				unsure = append(unsure, s.number)
				room += s.room()
			}
		}
		if room < u.quantity {
			return nil, fmt.Errorf("%w: %d wanted, %d left", stock.ErrLedger, u.quantity, room)
		}
		if roomSure >= u.quantity {
			return l.moveAll(ctx, tx, split(u, from(u.stripe, sure), stripe.room))
		}
		// Never none: they have the room that the locked ones lack.
		more, err := l.lockStripes(ctx, tx, u.sku, u.item, unsure)
		if err != nil {
			return nil, err
		}
		for _, s := range more {
			locked[s.number] = s
		}
	}
}

// tryMove is move that keeps no lock where it does not move.
func (l *Ledger) tryMove(ctx context.Context, tx Executor, u units) (bool, error) {
	if l.q.savepoint == "" {
		return l.move(ctx, tx, u)
	}
	if _, err := tx.ExecContext(ctx, l.q.savepoint); err != nil {
		return false, fmt.Errorf("count on a stripe: %w", err)
	}
	ok, err := l.move(ctx, tx, u)
	if err != nil {
		return false, err
	}
	if !ok {
		if _, err := tx.ExecContext(ctx, l.q.rollbackTo); err != nil {
			return false, fmt.Errorf("let go of a stripe: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, l.q.release); err != nil {
		return false, fmt.Errorf("count on a stripe: %w", err)
	}
	return ok, nil
}

// giveAllBack counts what a row was sold for as unsold, item after item.
func (l *Ledger) giveAllBack(ctx context.Context, tx Executor, r *row) error {
	y, err := l.layout(ctx, tx, r.sku)
	if err != nil {
		return err
	}
	_, now, err := y.content(r)
	if err != nil {
		return err
	}
	for _, u := range y.units(r, now) {
		if err := l.giveBack(ctx, tx, u); err != nil {
			return err
		}
	}
	return nil
}

// giveBack counts units as unsold: on the stripe of their own, else wherever
// units are counted as sold.
func (l *Ledger) giveBack(ctx context.Context, tx Executor, u units) error {
	if ok, err := l.tryMove(ctx, tx, u.on(u.stripe, -u.quantity)); err != nil || ok {
		return err
	}
	stripes, err := l.readStripes(ctx, tx, l.q.readStripes, u.sku, u.item)
	if err != nil {
		return err
	}
	numbers := make([]any, len(stripes))
	for i, s := range stripes {
		numbers[i] = s.number
	}
	if stripes, err = l.lockStripes(ctx, tx, u.sku, u.item, numbers); err != nil {
		return err
	}
	parts := split(u, from(u.stripe, stripes), func(s stripe) int64 { return s.sold })
	left := u.quantity
	for _, p := range parts {
		left -= p.quantity
	}
	if left > 0 {
		return fmt.Errorf("the stripes count %d units less than the rows", left)
	}
	return l.undo(ctx, tx, parts)
}

// split divides units over stripes: all to the first that can take all, else to
// each what it can.
func split(u units, stripes []stripe, can func(stripe) int64) []units {
	for _, s := range stripes {
		if can(s) >= u.quantity {
			return []units{u.on(s.number, u.quantity)}
		}
	}
	var parts []units
	left := u.quantity
	for _, s := range stripes {
		if n := min(left, can(s)); n > 0 {
			parts = append(parts, u.on(s.number, n))
			left -= n
		}
	}
	return parts
}

// move adds units to one counter (or takes them off, where they are negative),
// or reports that it would leave its bounds.
func (l *Ledger) move(ctx context.Context, tx Executor, u units) (bool, error) {
	n, err := affected(ctx, tx, l.q.move, u.quantity, u.sku, u.item, u.stripe, u.quantity, u.quantity)
	if err != nil {
		return false, fmt.Errorf("count on a stripe: %w", err)
	}
	return n == 1, nil
}

// moveAll moves counters of which it is known that they have room.
func (l *Ledger) moveAll(ctx context.Context, tx Executor, parts []units) ([]units, error) {
	for _, p := range parts {
		ok, err := l.move(ctx, tx, p)
		if err == nil && !ok {
			err = errors.New("count on a stripe: a locked one has changed")
		}
		if err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// undo takes moves back, so that a refusal leaves the transaction as it was.
func (l *Ledger) undo(ctx context.Context, tx Executor, parts []units) error {
	for i := range parts {
		parts[i].quantity = -parts[i].quantity
	}
	_, err := l.moveAll(ctx, tx, parts)
	return err
}

// lockStripes returns an item's stripes of the given numbers, and holds others
// off them until the transaction ends.
func (l *Ledger) lockStripes(ctx context.Context, tx Executor, sku string, item int, numbers []any) ([]stripe, error) {
	query := l.list(l.q.lockStripes, "?", len(numbers))
	return l.readStripes(ctx, tx, query, append([]any{sku, item}, numbers...)...)
}

func (l *Ledger) readStripes(ctx context.Context, tx Executor, query string, args ...any) (out []stripe, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read the stripes: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s stripe
		if err := rows.Scan(&s.number, &s.total, &s.sold); err != nil {
			return nil, fmt.Errorf("read the stripes: %w", err)
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the stripes: %w", err)
	}
	return out, nil
}

// from returns the stripes beginning with the one of the given number, so that
// sales which look for room don't all look in the same place.
func from(number int64, stripes []stripe) []stripe {
	for i, s := range stripes {
		if s.number == number {
			return append(append([]stripe(nil), stripes[i:]...), stripes[:i]...)
		}
	}
	return stripes
}
