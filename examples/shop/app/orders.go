package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Order is a row of the order table.
type Order struct {
	ID          string    `json:"order_id"`
	Reservation stock.ID  `json:"reservation_id"`
	SKU         string    `json:"sku"`
	Buyer       string    `json:"-"`
	Quantity    int64     `json:"quantity"`
	Expires     time.Time `json:"expires_at"`
	Placed      time.Time `json:"-"`
	Status      string    `json:"status"` // held, confirmed, cancelled
}

var errNoOrder = errors.New("no such order")

// orderID is made of the claim, so every attempt names the same order; the
// claim is a keyed hash, so nobody guesses it.
func orderID(id stock.ID) string {
	claim := id.ClaimPart()
	return fmt.Sprintf("%x", claim[:])
}

// orders is the order table. Statements are the same on PostgreSQL and SQLite.
type orders struct{ db *sql.DB }

// insert writes the order in the purchase's transaction. One that stands
// already was placed by an earlier attempt.
func (orders) insert(ctx context.Context, tx *sql.Tx, o Order) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO shop_order (id, reservation_id, sku, buyer, quantity, expires_at, placed_at, status)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'held') ON CONFLICT DO NOTHING`,
		o.ID, o.Reservation, o.SKU, o.Buyer, o.Quantity, o.Expires.UnixMilli(), o.Placed.UnixMilli())
	if err != nil {
		return fmt.Errorf("insert order: %w", err)
	}
	return nil
}

// finish moves an order from held to its end.
func (orders) finish(ctx context.Context, tx *sql.Tx, id, status string) error {
	_, err := tx.ExecContext(ctx, `UPDATE shop_order SET status = $1 WHERE id = $2 AND status = 'held'`, status, id)
	if err != nil {
		return fmt.Errorf("finish order: %w", err)
	}
	return nil
}

// settle notes that nothing is left to do for an order that has ended.
func (o orders) settle(ctx context.Context, id string) error {
	_, err := o.db.ExecContext(ctx, `UPDATE shop_order SET settled_at = $1 WHERE id = $2 AND status <> 'held' AND settled_at = 0`, time.Now().UnixMilli(), id)
	if err != nil {
		return fmt.Errorf("settle order: %w", err)
	}
	return nil
}

// overdue returns up to n orders that are not settled though their hold ended
// before a time, by rising end of the hold, after the given one.
func (o orders) overdue(ctx context.Context, sku string, before time.Time, after Order, n int) ([]Order, error) {
	return o.query(ctx, `WHERE sku = $1 AND settled_at = 0 AND expires_at < $2 AND (expires_at > $3 OR expires_at = $4 AND id > $5)
		ORDER BY expires_at, id LIMIT $6`, sku, before.UnixMilli(), after.Expires.UnixMilli(), after.Expires.UnixMilli(), after.ID, n)
}

func (o orders) get(ctx context.Context, id string) (Order, error) {
	list, err := o.query(ctx, `WHERE id = $1`, id)
	if err != nil {
		return Order{}, err
	}
	if len(list) == 0 {
		return Order{}, errNoOrder
	}
	return list[0], nil
}

// last returns the newest orders, for the page.
func (o orders) last(ctx context.Context, sku string, n int) ([]Order, error) {
	return o.query(ctx, `WHERE sku = $1 ORDER BY placed_at DESC LIMIT $2`, sku, n)
}

func (o orders) query(ctx context.Context, where string, args ...any) ([]Order, error) {
	rows, err := o.db.QueryContext(ctx, strings.Join([]string{
		`SELECT id, reservation_id, sku, buyer, quantity, expires_at, placed_at, status FROM shop_order`, where,
	}, " "), args...)
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []Order
	for rows.Next() {
		var o Order
		var expires, placed int64
		if err := rows.Scan(&o.ID, &o.Reservation, &o.SKU, &o.Buyer, &o.Quantity, &expires, &placed, &o.Status); err != nil {
			return nil, fmt.Errorf("read orders: %w", err)
		}
		o.Expires, o.Placed = time.UnixMilli(expires).UTC(), time.UnixMilli(placed).UTC()
		list = append(list, o)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	return list, nil
}
