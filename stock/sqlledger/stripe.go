package sqlledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/firstcome/firstcome/stock"
)

// part is what a sale took from one stripe of a pool.
type part struct {
	sku      string
	stripe   int64
	quantity int64
}

// stripe is one of a pool's counters.
type stripe struct{ number, total, sold int64 }

func (s stripe) room() int64 { return s.total - s.sold }

// take counts q units as sold, where the quick way did not: on the stripe of
// its own or the next with room, else split over several. It returns what it
// took where, or [stock.ErrLedger], having changed nothing, when it saw too
// little room.
func (l *Ledger) take(ctx context.Context, tx Executor, sku string, own, q int64) ([]part, error) {
	// Without locks first: only a hint, but most often there is room. And a
	// full stripe is not tried: two sales that each keep one locked and then
	// want the other would deadlock.
	stripes, err := l.readStripes(ctx, tx, l.q.readStripes, sku)
	if err != nil {
		return nil, err
	}
	for _, s := range from(own, stripes) {
		if s.room() < q {
			l.tight.met(poolPart(sku))
			continue
		}
		if ok, err := l.tryMove(ctx, tx, sku, s.number, q); err != nil || ok {
			return []part{{sku, s.number, q}}, err
		}
	}
	return l.takeLocked(ctx, tx, sku, own, q)
}

// takeLocked takes q units where the others have left room. It locks the
// stripes that seem to have some, since only so can it know, until those that
// it has locked have enough, or those that are left (full when last seen) can't
// make up for what is missing.
func (l *Ledger) takeLocked(ctx context.Context, tx Executor, sku string, own, q int64) ([]part, error) {
	locked := make(map[int64]stripe)
	for {
		stripes, err := l.readStripes(ctx, tx, l.q.readStripes, sku)
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
		if room < q {
			return nil, fmt.Errorf("%w: %d wanted, %d left", stock.ErrLedger, q, room)
		}
		if roomSure >= q {
			return l.moveAll(ctx, tx, split(sku, from(own, sure), q, stripe.room))
		}
		// Never none: they have the room that the locked ones lack.
		more, err := l.lockStripes(ctx, tx, sku, unsure)
		if err != nil {
			return nil, err
		}
		for _, s := range more {
			locked[s.number] = s
		}
	}
}

// tryMove is move that keeps no lock where it does not move.
func (l *Ledger) tryMove(ctx context.Context, tx Executor, sku string, number, delta int64) (bool, error) {
	if l.q.savepoint == "" {
		return l.move(ctx, tx, sku, number, delta)
	}
	if _, err := tx.ExecContext(ctx, l.q.savepoint); err != nil {
		return false, fmt.Errorf("count on a stripe: %w", err)
	}
	ok, err := l.move(ctx, tx, sku, number, delta)
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

// giveBack counts q units as unsold: on the stripe of its own, else wherever
// units are counted as sold.
func (l *Ledger) giveBack(ctx context.Context, tx Executor, sku string, own, q int64) error {
	if ok, err := l.tryMove(ctx, tx, sku, own, -q); err != nil || ok {
		return err
	}
	stripes, err := l.readStripes(ctx, tx, l.q.readStripes, sku)
	if err != nil {
		return err
	}
	numbers := make([]any, len(stripes))
	for i, s := range stripes {
		numbers[i] = s.number
	}
	if stripes, err = l.lockStripes(ctx, tx, sku, numbers); err != nil {
		return err
	}
	parts := split(sku, from(own, stripes), q, func(s stripe) int64 { return s.sold })
	for i := range parts {
		q -= parts[i].quantity
		parts[i].quantity = -parts[i].quantity
	}
	if q > 0 {
		return fmt.Errorf("the stripes count %d units less than the rows", q)
	}
	_, err = l.moveAll(ctx, tx, parts)
	return err
}

// split divides q units over stripes: all to the first that can take all, else
// to each what it can.
func split(sku string, stripes []stripe, q int64, can func(stripe) int64) []part {
	for _, s := range stripes {
		if can(s) >= q {
			return []part{{sku, s.number, q}}
		}
	}
	var parts []part
	for _, s := range stripes {
		if n := min(q, can(s)); n > 0 {
			parts = append(parts, part{sku, s.number, n})
			q -= n
		}
	}
	return parts
}

// move adds delta to one counter, or reports that it would leave its bounds.
func (l *Ledger) move(ctx context.Context, tx Executor, sku string, number, delta int64) (bool, error) {
	n, err := affected(ctx, tx, l.q.move, delta, sku, number, delta, delta)
	if err != nil {
		return false, fmt.Errorf("count on a stripe: %w", err)
	}
	return n == 1, nil
}

// moveAll moves counters of which it is known that they have room.
func (l *Ledger) moveAll(ctx context.Context, tx Executor, parts []part) ([]part, error) {
	for _, p := range parts {
		ok, err := l.move(ctx, tx, p.sku, p.stripe, p.quantity)
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
func (l *Ledger) undo(ctx context.Context, tx Executor, parts []part) error {
	for i := range parts {
		parts[i].quantity = -parts[i].quantity
	}
	_, err := l.moveAll(ctx, tx, parts)
	return err
}

// lockStripes returns the stripes of the given numbers, and holds others off
// them until the transaction ends.
func (l *Ledger) lockStripes(ctx context.Context, tx Executor, sku string, numbers []any) ([]stripe, error) {
	query := l.list(l.q.lockStripes, "?", len(numbers))
	return l.readStripes(ctx, tx, query, append([]any{sku}, numbers...)...)
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
