package sqlledger

import (
	"context"
	"fmt"

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

// Return takes a final order back, inside the transaction that marks it so:
// its units are no longer counted as sold. Returning twice is success and
// counts once. After the commit follow up with [stock.Store.Return], which frees
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
	if err := l.giveBack(ctx, tx, r.sku, r.stripe, r.quantity); err != nil {
		return fmt.Errorf("return: %w", err)
	}
	if err := l.setState(ctx, tx, id, sold, returned); err != nil {
		return fmt.Errorf("return: %w", err)
	}
	return nil
}
