package sqlledger

import (
	"context"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Cancel ends an order that is not sold, inside the transaction that marks it
// as cancelled. Cancelling twice is success. After the commit follow up with
// [stock.Store.Cancel], which frees the units.
//
// The refusals change nothing: [stock.ErrConfirmed] (it is sold: see
// [Ledger.Return]), [stock.ErrExpired], [stock.ErrTooLate] (sold and returned),
// [stock.ErrNotFound] (no order was placed under this ID).
func (l *Ledger) Cancel(ctx context.Context, tx Executor, id stock.ID) error {
	n, err := affected(ctx, tx, l.q.setState, string(cancelled), id.String(), string(held))
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	if n == 1 {
		return nil
	}
	r, err := l.lock(ctx, tx, id)
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	switch r.state {
	case cancelled:
		return nil
	case sold:
		return fmt.Errorf("cancel: %w", stock.ErrConfirmed)
	default:
		return fmt.Errorf("cancel: %w", r.state.ended())
	}
}

// Extend records that an order's hold ends at a later time, inside your
// transaction. An earlier time than is recorded changes nothing. The ledger
// itself looks at no clock; the time is what [stock.Store.Rebuild] restores.
// After the commit follow up with [stock.Store.Extend].
//
// The refusals change nothing: [stock.ErrConfirmed] (it is sold),
// [stock.ErrCancelled], [stock.ErrExpired], [stock.ErrTooLate] (sold and
// returned), [stock.ErrNotFound], [stock.ErrInvalid] (the time is zero).
func (l *Ledger) Extend(ctx context.Context, tx Executor, id stock.ID, until time.Time) error {
	if until.IsZero() {
		return fmt.Errorf("extend: %w: until is zero", stock.ErrInvalid)
	}
	n, err := affected(ctx, tx, l.q.extend, until.UnixMilli(), id.String(), until.UnixMilli())
	if err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	if n == 1 {
		return nil
	}
	r, err := l.lock(ctx, tx, id)
	if err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	switch r.state {
	case held:
		return nil // it has that time or a later one
	case sold:
		return fmt.Errorf("extend: %w", stock.ErrConfirmed)
	default:
		return fmt.Errorf("extend: %w", r.state.ended())
	}
}

// Return takes a final order back, inside the transaction that marks it so:
// what it was sold for, all or a part, is no longer counted as sold. Returning
// twice is success and counts once. After the commit follow up with [stock.Store.Return], which frees
// the units.
//
// The refusals change nothing: [stock.ErrNotConfirmed] (see [Ledger.Cancel]),
// [stock.ErrCancelled], [stock.ErrExpired], [stock.ErrNotFound].
func (l *Ledger) Return(ctx context.Context, tx Executor, id stock.ID) error {
	r, err := l.lock(ctx, tx, id)
	if err != nil {
		return fmt.Errorf("return: %w", err)
	}
	switch r.state {
	case sold:
	case returned:
		return nil
	case held:
		return fmt.Errorf("return: %w", stock.ErrNotConfirmed)
	default:
		return fmt.Errorf("return: %w", r.state.ended())
	}
	if err := l.giveAllBack(ctx, tx, &r); err != nil {
		return fmt.Errorf("return: %w", err)
	}
	if err := l.setState(ctx, tx, id, sold, returned); err != nil {
		return fmt.Errorf("return: %w", err)
	}
	return nil
}
