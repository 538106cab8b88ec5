package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"

	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/sqlledger"
	"github.com/firstcome/firstcome/worker"
)

const (
	topicOrders = "orders"         // the one topic of the shop
	handlerName = "order.checkout" // the checkout's name in the inbox
)

// placed is the event order.placed.
type placed struct {
	OrderID     string   `json:"order_id"`
	Reservation stock.ID `json:"reservation_id"`
	SKU         string   `json:"sku"`
	Quantity    int64    `json:"quantity"`
}

// eventID is the ID of an order's one event.
func eventID(reservation stock.ID) string { return reservation.String() + "/placed" }

// checkout takes an order from placed to its end: authorise, sell, capture; or,
// where the card is declined or the hold is gone, cancel and void. Each step
// may be repeated and takes effect once, so a crash anywhere is followed by
// the same event again.
//
// Two attempts may be at one order, a worker and the reconciler say. The ledger's
// row decides between them: what was sold there is charged, what has ended there
// is voided, and neither ever becomes the other. So money moves only after it.
type checkout struct {
	ledger *sqlledger.Ledger
	stock  stock.Store
	orders orders
	pay    *provider
}

func (c *checkout) handle(ctx context.Context, e worker.Event[placed]) error {
	if err := c.finish(ctx, e.Payload); err != nil {
		return err
	}
	return c.orders.settle(ctx, e.Payload.OrderID)
}

func (c *checkout) finish(ctx context.Context, p placed) error {
	switch err := c.pay.authorise(ctx, p.OrderID, p.Quantity); {
	case errors.Is(err, errDeclined), errors.Is(err, errVoided):
		return c.giveUp(ctx, p)
	case err != nil:
		return err
	}
	switch err := c.sell(ctx, p); {
	case errors.Is(err, stock.ErrExpired), errors.Is(err, stock.ErrCancelled), errors.Is(err, stock.ErrLedger):
		return c.giveUp(ctx, p)
	case errors.Is(err, stock.ErrNotFound):
		// The event and the ledger's row were written together: this one comes
		// from another database, and no attempt will mend it.
		return worker.Stop(err)
	case err != nil:
		return err
	}
	return c.complete(ctx, p)
}

// complete brings an order that the ledger has sold to its end.
func (c *checkout) complete(ctx context.Context, p placed) error {
	confirm := func(ctx context.Context, id stock.ID) (stock.Hold, error) { return c.stock.Confirm(ctx, id) }
	if err := c.follow(ctx, "confirm", confirm, p.Reservation); err != nil {
		return err
	}
	return c.pay.capture(ctx, p.OrderID)
}

// sell makes the order final in the ledger and in the order table at once.
func (c *checkout) sell(ctx context.Context, p placed) error {
	return c.ledger.InTx(ctx, func(tx *sql.Tx) error {
		if err := c.ledger.Sell(ctx, tx, p.Reservation); err != nil {
			return err
		}
		return c.orders.finish(ctx, tx, p.OrderID, "confirmed")
	})
}

// giveUp ends an order that will not be sold: ledger and order, then money, then
// stock. Where another attempt has sold it meanwhile, it is completed.
func (c *checkout) giveUp(ctx context.Context, p placed) error {
	err := c.ledger.InTx(ctx, func(tx *sql.Tx) error {
		// What expired in the ledger is given back there already.
		if err := c.ledger.Cancel(ctx, tx, p.Reservation); err != nil && !errors.Is(err, stock.ErrExpired) {
			return err
		}
		return c.orders.finish(ctx, tx, p.OrderID, "cancelled")
	})
	switch {
	case errors.Is(err, stock.ErrConfirmed):
		return c.complete(ctx, p)
	case err != nil:
		return err
	}
	if err := c.pay.void(ctx, p.OrderID, p.Quantity); err != nil {
		return err
	}
	return c.follow(ctx, "cancel", c.stock.Cancel, p.Reservation)
}

// follow tells Redis what the ledger decided. Where Redis disagrees (it has
// lost the hold, say) the ledger stands; its audit names the difference.
func (c *checkout) follow(ctx context.Context, step string, do func(context.Context, stock.ID) (stock.Hold, error), id stock.ID) error {
	_, err := do(ctx, id)
	for _, final := range []error{stock.ErrNotFound, stock.ErrConfirmed, stock.ErrCancelled, stock.ErrExpired} {
		if errors.Is(err, final) {
			slog.WarnContext(ctx, "shop: stock disagrees with the ledger", "step", step, "error", err)
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("%s in stock: %w", step, err)
	}
	return nil
}
