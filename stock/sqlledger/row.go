package sqlledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// state is a reservation's state as its row spells it. To [stock.State] it
// adds void: a hold that was given up before an order came for it.
type state string

const (
	held      state = "held"
	sold      state = "sold"
	cancelled state = "cancelled"
	expired   state = "expired"
	returned  state = "returned"
	void      state = "void"
)

// row is one row of firstcome_stock_reservation.
type row struct {
	id        stock.ID
	sku       string
	buyer     string
	quantity  int64
	expiresMS int64
	epoch     int64
	stripe    int64
	state     state

	// What was asked for and released by item, as [layout.column] writes it, and
	// how many units were released.
	asked, released string
	releasedUnits   int64
}

// public turns the row's state into the caller's. A void row is a hold that
// expired without an order.
func (s state) public() stock.State {
	switch s {
	case held:
		return stock.Held
	case sold:
		return stock.Sold
	case cancelled:
		return stock.Cancelled
	case expired, void:
		return stock.Expired
	case returned:
		return stock.Returned
	default:
		return 0
	}
}

// ended returns why nothing more can be done with a row in this state.
func (s state) ended() error {
	switch s {
	case cancelled:
		return stock.ErrCancelled
	case expired, void:
		return stock.ErrExpired
	case returned:
		return stock.ErrTooLate
	default:
		return fmt.Errorf("unexpected state %q", string(s))
	}
}

// errNoRow says that a query found nothing.
var errNoRow = errors.New("no such row")

// oneRow runs readRow or lockRow.
func (l *Ledger) oneRow(ctx context.Context, tx Executor, query string, id stock.ID) (row, error) {
	rows, err := l.rows(ctx, tx, query, id.String())
	if err != nil {
		return row{}, err
	}
	if len(rows) == 0 {
		return row{}, errNoRow
	}
	return rows[0], nil
}

// rows runs a query that returns rowColumns.
func (l *Ledger) rows(ctx context.Context, tx Executor, query string, args ...any) (out []row, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r row
		err := rows.Scan(&r.id, &r.sku, &r.buyer, &r.quantity, &r.expiresMS, &r.epoch, &r.stripe, &r.state,
			&r.asked, &r.released, &r.releasedUnits)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// one runs a query and scans its only row, or returns [errNoRow].
func one(ctx context.Context, tx Executor, query string, args, dest []any) (err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if !rows.Next() {
		return errors.Join(rows.Err(), errNoRow)
	}
	if err := rows.Scan(dest...); err != nil {
		return err
	}
	return rows.Err()
}

// entry is the row without what its pool implies.
func (l *Ledger) entry(ctx context.Context, tx Executor, r *row) (stock.Entry, error) {
	e := stock.Entry{
		ID: r.id, Buyer: r.buyer, Quantity: r.quantity - r.releasedUnits,
		Expires: time.UnixMilli(r.expiresMS), State: r.state.public(),
	}
	if r.asked == "" {
		if r.releasedUnits > 0 {
			e.Released = []stock.Line{{SKU: r.sku, Quantity: r.releasedUnits}}
		}
		return e, nil
	}
	y, err := l.layout(ctx, tx, r.sku)
	if err != nil {
		return stock.Entry{}, err
	}
	asked, now, err := y.content(r)
	if err != nil {
		return stock.Entry{}, err
	}
	e.Lines, e.Released = y.pool.Lines(now), y.pool.Lines(minus(asked, now))
	return e, nil
}
