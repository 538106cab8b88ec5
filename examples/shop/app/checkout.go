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

// checkout takes an order from placed to its end: authorise, sell, capture; or,
// where the card is declined or the hold is gone, void and cancel. Each step
// may be repeated and takes effect once, so a crash anywhere is followed by
// the same event again.
type checkout struct {
	ledger *sqlledger.Ledger
	stock  stock.Store
	orders orders
	pay    *provider
}

func (c *checkout) handle(ctx context.Context, e worker.Event[placed]) error {
	p := e.Payload
	switch err := c.pay.authorise(ctx, p.OrderID, p.Quantity); {
	case errors.Is(err, errDeclined), errors.Is(err, errVoided):
		return c.cancel(ctx, p)
	case err != nil:
		return err
	}
	switch err := c.sell(ctx, p); {
	case errors.Is(err, stock.ErrExpired), errors.Is(err, stock.ErrCancelled), errors.Is(err, stock.ErrLedger):
		return c.cancel(ctx, p)
	case errors.Is(err, stock.ErrNotFound):
		// The event and the ledger's row were written together: this one comes
		// from another database, and no attempt will mend it.
		return worker.Stop(err)
	case err != nil:
		return err
	}
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

// cancel ends an order that will not be sold: money, order and ledger, stock.
func (c *checkout) cancel(ctx context.Context, p placed) error {
	if err := c.pay.void(ctx, p.OrderID); err != nil {
		return err
	}
	err := c.ledger.InTx(ctx, func(tx *sql.Tx) error {
		// What expired in the ledger is given back there already.
		if err := c.ledger.Cancel(ctx, tx, p.Reservation); err != nil && !errors.Is(err, stock.ErrExpired) {
			return err
		}
		return c.orders.finish(ctx, tx, p.OrderID, "cancelled")
	})
	if err != nil {
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
