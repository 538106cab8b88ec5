package app

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/sqlledger"
)

// counter sells: it reserves the units and writes the order, its ledger row
// and its event in one transaction.
type counter struct {
	stock  stock.Store
	ledger *sqlledger.Ledger
	outbox *sqloutbox.Store
	orders orders
	notify func() // wakes the relay of this process, if it has one
}

// buy places the order of one claim. Every step finds what an earlier attempt
// did, so buy may run again after any failure.
func (c *counter) buy(ctx context.Context, claim *idempotency.Claim, sku, buyer string, quantity int64) (Order, error) {
	id := stock.NewID(sku, buyer, claim.ID())
	hold, err := c.stock.Reserve(ctx, stock.Request{
		ID: id, SKU: sku, Buyer: buyer, Quantity: quantity, Born: claim.Started(), First: claim.First(),
	})
	if err != nil {
		return Order{}, err
	}
	switch hold.State {
	case stock.Expired:
		return Order{}, stock.ErrTooLate
	case stock.Cancelled, stock.Returned:
		o, err := c.orders.get(ctx, orderID(id))
		if errors.Is(err, errNoOrder) {
			err = stock.ErrTooLate
		}
		return o, err
	}
	o := Order{
		ID: orderID(id), Reservation: id, SKU: sku, Buyer: buyer, Quantity: quantity,
		Expires: hold.Expires.UTC(), Placed: time.Now().UTC(), Status: "held",
	}
	existed, err := c.place(ctx, hold, o)
	if err != nil {
		return c.afterFailure(ctx, o, err)
	}
	c.notify()
	if existed {
		return c.orders.get(ctx, o.ID)
	}
	return o, nil
}

// place is the one transaction of a purchase.
func (c *counter) place(ctx context.Context, hold stock.Hold, o Order) (existed bool, err error) {
	payload, err := json.Marshal(placed{OrderID: o.ID, Reservation: o.Reservation, SKU: o.SKU, Quantity: o.Quantity})
	if err != nil {
		return false, err
	}
	err = c.ledger.InTx(ctx, func(tx *sql.Tx) error {
		if existed, err = c.ledger.Place(ctx, tx, hold, o.Buyer); err != nil || existed {
			return err
		}
		if err := c.orders.insert(ctx, tx, o); err != nil {
			return err
		}
		return c.outbox.Add(ctx, tx, outbox.Message{
			ID: eventID(o.Reservation), Topic: topicOrders, Key: o.ID, Payload: payload,
		})
	})
	return existed, err
}

// afterFailure answers where the transaction failed. The ledger's refusals are
// answers. After any other error (a COMMIT whose reply was lost, say) the order
// may stand: it is asked for on a new connection, and what can't be learned
// stays unknown. The hold is never cancelled here, since another attempt of
// the same key may have placed the order: a retry finds the hold and goes on,
// and without one it ends at its time.
func (c *counter) afterFailure(ctx context.Context, o Order, err error) (Order, error) {
	for _, refusal := range []error{stock.ErrFenced, stock.ErrTooLate, stock.ErrExpired, stock.ErrCancelled, stock.ErrMismatch} {
		if errors.Is(err, refusal) {
			return Order{}, err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if found, getErr := c.orders.get(ctx, o.ID); getErr == nil {
		return found, nil
	}
	return Order{}, fmt.Errorf("%w: %w", stock.ErrUnknown, err)
}
