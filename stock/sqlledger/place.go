package sqlledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/firstcome/firstcome/stock"
)

// Place records, inside the order's transaction, that an order stands behind
// the hold: hold is [stock.Store.Reserve]'s answer and buyer the name that the
// request bore. From its commit on the hold's end is the ledger's decision
// (see [stock.Pool.Unpaid]). What is placed is what was asked for, Lines and
// Released together; a hold of which a part was released can be sold as that
// part only.
//
// A row of the same ID and content is not an error: existed is true then, and
// the order was placed before (and perhaps sold). Otherwise:
//   - [stock.ErrTooLate]: the hold was given up before the order came, or the
//     order was returned.
//   - [stock.ErrExpired], [stock.ErrCancelled]: the order was placed and ended so.
//   - [*stock.MismatchError]: the ID stands with other content.
//   - [stock.ErrFenced]: the pool is in another epoch; reserve again with the same ID.
//   - [stock.ErrRetired]: the pool is over for good.
//   - [stock.ErrUnknownSKU]: no such pool; as an [*stock.ItemError], no such item in it.
//   - [stock.ErrInvalid]: the hold is not one that Reserve returned.
//
// It holds a share lock on the pool's epoch until the transaction ends, which
// only [Ledger.RaiseEpoch] and [Ledger.Retire] wait for.
func (l *Ledger) Place(ctx context.Context, tx Executor, hold stock.Hold, buyer string) (existed bool, err error) {
	if err := checkHold(hold, buyer); err != nil {
		return false, fmt.Errorf("place: %w", err)
	}
	y, err := l.layout(ctx, tx, hold.SKU)
	if err != nil {
		return false, fmt.Errorf("place: %w", err)
	}
	asked, released, err := y.order(&hold)
	if err != nil {
		return false, fmt.Errorf("place: %w", err)
	}
	n, err := affected(ctx, tx, l.q.place,
		hold.ID.String(), hold.SKU, buyer, sum(asked), hold.Expires.UnixMilli(), hold.Epoch, l.turn.Add(1)%y.stripes,
		y.column(asked), y.column(released), sum(released), hold.SKU, hold.Epoch)
	if err != nil {
		return false, fmt.Errorf("place: insert the reservation: %w", err)
	}
	if n == 1 {
		return false, nil
	}
	if err := l.whyNotPlaced(ctx, tx, y, hold, buyer, asked); err != nil {
		return false, fmt.Errorf("place: %w", err)
	}
	return true, nil
}

// whyNotPlaced returns nil where the same order was placed before. The row is
// looked at first: what was placed in an earlier epoch was placed.
func (l *Ledger) whyNotPlaced(ctx context.Context, tx Executor, y *layout, hold stock.Hold, buyer string, asked []int64) error {
	r, err := l.oneRow(ctx, tx, l.q.placedRow, hold.ID)
	if errors.Is(err, errNoRow) {
		return l.whyNoEpoch(ctx, tx, hold)
	}
	if err != nil {
		return fmt.Errorf("read the reservation: %w", err)
	}
	switch {
	case r.state == void:
		return stock.ErrTooLate
	case r.sku != hold.SKU:
		return &stock.MismatchError{Field: "sku"}
	case r.buyer != buyer:
		return &stock.MismatchError{Field: "buyer"}
	case r.quantity != sum(asked) || r.asked != y.column(asked):
		return y.mismatch()
	case r.state == held || r.state == sold:
		return nil
	default:
		return r.state.ended()
	}
}

func (l *Ledger) whyNoEpoch(ctx context.Context, tx Executor, hold stock.Hold) error {
	var epoch int64
	var retired bool
	err := one(ctx, tx, l.q.readEpoch, []any{hold.SKU}, []any{&epoch, &retired})
	switch {
	case errors.Is(err, errNoRow):
		return stock.ErrUnknownSKU
	case err != nil:
		return fmt.Errorf("read the epoch: %w", err)
	case retired:
		return stock.ErrRetired
	default:
		// The same epoch is no contradiction: it is about to end, or an old
		// snapshot shows it.
		return fmt.Errorf("%w: the ledger is in epoch %d, the hold in %d", stock.ErrFenced, epoch, hold.Epoch)
	}
}

// checkHold refuses what can't be an answer of Reserve to this buyer.
func checkHold(hold stock.Hold, buyer string) error {
	r := stock.Request{ID: hold.ID, SKU: hold.SKU, Buyer: buyer, Quantity: hold.Quantity, Lines: hold.Lines}
	if err := r.Validate(); err != nil {
		return err
	}
	if hold.Quantity < 1 {
		return fmt.Errorf("%w: Quantity is %d, want the sum of the Lines", stock.ErrInvalid, hold.Quantity)
	}
	if hold.Epoch < 1 {
		return fmt.Errorf("%w: Epoch is %d, want at least 1", stock.ErrInvalid, hold.Epoch)
	}
	if hold.Expires.IsZero() {
		return fmt.Errorf("%w: Expires is zero", stock.ErrInvalid)
	}
	switch hold.State {
	case stock.Held, stock.Sold:
		return nil
	case stock.Cancelled:
		return stock.ErrCancelled
	case stock.Expired:
		return stock.ErrExpired
	case stock.Returned:
		return stock.ErrTooLate
	default:
		return fmt.Errorf("%w: State is %v", stock.ErrInvalid, hold.State)
	}
}
