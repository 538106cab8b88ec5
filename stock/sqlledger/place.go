package sqlledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/firstcome/firstcome/stock"
)

// Place records, inside the order's transaction, that an order stands behind
// the hold: hold is [stock.Store.Reserve]'s answer and buyer the name that the
// request bore. From its commit on the hold's end is the ledger's decision
// (see [Options.Unpaid]).
//
// A row of the same ID and content is not an error: existed is true then, and
// the order was placed before (and perhaps sold). Otherwise:
//   - [stock.ErrTooLate]: the hold was given up before the order came, or the
//     order was returned.
//   - [stock.ErrExpired], [stock.ErrCancelled]: the order was placed and ended so.
//   - [*stock.MismatchError]: the ID stands with other content.
//   - [stock.ErrFenced]: the pool is in another epoch; reserve again with the same ID.
//   - [stock.ErrUnknownSKU]: no such pool.
//   - [stock.ErrInvalid]: the hold is not one that Reserve returned.
//
// It holds a share lock on the pool's epoch until the transaction ends, which
// only [Ledger.RaiseEpoch] waits for.
func (l *Ledger) Place(ctx context.Context, tx Executor, hold stock.Hold, buyer string) (existed bool, err error) {
	if err := checkHold(hold, buyer); err != nil {
		return false, fmt.Errorf("place: %w", err)
	}
	n, err := affected(ctx, tx, l.q.place,
		hold.ID.String(), hold.SKU, buyer, hold.Quantity, hold.Expires.UnixMilli(), hold.Epoch, spread(hold.ID),
		hold.SKU, hold.Epoch)
	if err != nil {
		return false, fmt.Errorf("place: insert the reservation: %w", err)
	}
	if n == 1 {
		return false, nil
	}
	if err := l.whyNotPlaced(ctx, tx, hold, buyer); err != nil {
		return false, fmt.Errorf("place: %w", err)
	}
	return true, nil
}

// whyNotPlaced returns nil where the same order was placed before. The row is
// looked at first: what was placed in an earlier epoch was placed.
func (l *Ledger) whyNotPlaced(ctx context.Context, tx Executor, hold stock.Hold, buyer string) error {
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
	case r.quantity != hold.Quantity:
		return &stock.MismatchError{Field: "quantity"}
	case r.state == held || r.state == sold:
		return nil
	default:
		return r.state.ended()
	}
}

func (l *Ledger) whyNoEpoch(ctx context.Context, tx Executor, hold stock.Hold) error {
	var epoch int64
	err := one(ctx, tx, l.q.readEpoch, []any{hold.SKU}, []any{&epoch})
	switch {
	case errors.Is(err, errNoRow):
		return stock.ErrUnknownSKU
	case err != nil:
		return fmt.Errorf("read the epoch: %w", err)
	default:
		// The same epoch is no contradiction: it is about to end, or an old
		// snapshot shows it.
		return fmt.Errorf("%w: the ledger is in epoch %d, the hold in %d", stock.ErrFenced, epoch, hold.Epoch)
	}
}

// checkHold refuses what can't be an answer of Reserve to this buyer.
func checkHold(hold stock.Hold, buyer string) error {
	r := stock.Request{ID: hold.ID, SKU: hold.SKU, Buyer: buyer, Quantity: hold.Quantity}
	if err := r.Validate(); err != nil {
		return err
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

// spread is a number by which IDs spread evenly over stripes; the buyer's part
// is a digest.
func spread(id stock.ID) int64 {
	part := id.BuyerPart()
	return int64(binary.BigEndian.Uint16(part[:]))
}
