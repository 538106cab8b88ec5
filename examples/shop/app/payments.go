package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
)

// provider stands in for a payment provider. Like a real one it keeps its own
// idempotency records: a step asked for twice under one ID takes effect once.
// Its books are in SQL, so that they outlive the shop.
type provider struct {
	db       *sql.DB
	failures float64 // share of cards that are declined
}

var (
	errDeclined = errors.New("payment declined")
	errVoided   = errors.New("payment was voided")
)

// declines is decided by the ID, so a repeat is declined again.
func (p *provider) declines(id string) bool {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return float64(h.Sum64()>>11)/(1<<53) < p.failures
}

// authorise reserves the money. Repeating it is success, or errDeclined again.
func (p *provider) authorise(ctx context.Context, id string, quantity int64) error {
	status := "authorised"
	if p.declines(id) {
		status = "declined"
	}
	_, err := p.db.ExecContext(ctx, `INSERT INTO shop_payment (id, quantity, status) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, id, quantity, status)
	if err != nil {
		return fmt.Errorf("authorise: %w", err)
	}
	err = p.db.QueryRowContext(ctx, `SELECT status FROM shop_payment WHERE id = $1`, id).Scan(&status)
	switch {
	case err != nil:
		return fmt.Errorf("authorise: %w", err)
	case status == "declined":
		return errDeclined
	case status == "voided":
		return errVoided
	default:
		return nil
	}
}

// capture takes the money that was authorised, once.
func (p *provider) capture(ctx context.Context, id string) error {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	moved, err := affected(tx.ExecContext(ctx, `UPDATE shop_payment SET status = 'captured' WHERE id = $1 AND status = 'authorised'`, id))
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	if moved == 0 {
		var status string
		if err := tx.QueryRowContext(ctx, `SELECT status FROM shop_payment WHERE id = $1`, id).Scan(&status); err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		if status != "captured" {
			return fmt.Errorf("capture: payment is %s", status)
		}
		return nil
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO shop_charge (payment_id, quantity) SELECT id, quantity FROM shop_payment WHERE id = $1`, id)
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}

// void gives back what was authorised and not yet captured, and refuses an
// authorisation that comes later. What was captured or declined stays so.
func (p *provider) void(ctx context.Context, id string, quantity int64) error {
	_, err := p.db.ExecContext(ctx, `INSERT INTO shop_payment (id, quantity, status) VALUES ($1, $2, 'voided')
		ON CONFLICT (id) DO UPDATE SET status = 'voided' WHERE shop_payment.status = 'authorised'`, id, quantity)
	if err != nil {
		return fmt.Errorf("void: %w", err)
	}
	return nil
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
