package sqlledger

import (
	"context"
	"fmt"

	"github.com/firstcome/firstcome/stock"
)

// Record is one reservation as [Ledger.Status] finds it.
type Record struct {
	stock.Entry // State may be any: a hold given up before its order came is Expired

	SKU   string
	Epoch int64 // in which the order was placed
	Void  bool  // no order stands behind it, and none can come any more
}

// Status tells what became of an ID, for a caller whose COMMIT got no answer:
// whatever transaction has placed, sold, cancelled or returned it is over when
// Status answers. While one is open Status waits, as long as ctx allows. It
// uses a connection of its own and changes nothing.
//
// [stock.ErrNotFound] means that no transaction with this ID has committed and
// none is open: what was unknown did not happen, and may be tried again.
func (l *Ledger) Status(ctx context.Context, id stock.ID) (Record, error) {
	tx, err := l.db.BeginTx(ctx, l.isolation())
	if err != nil {
		return Record{}, fmt.Errorf("ask for status: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // always: the void row is only a question
	// A plain SELECT would overlook a transaction that is still open (its
	// client is gone, its server has not noticed). The unique ID waits for it.
	n, err := affected(ctx, tx, l.list(l.q.void, voidRow, 1), id.String(), "")
	if err != nil {
		return Record{}, fmt.Errorf("ask for status: %w", err)
	}
	if n == 1 {
		return Record{}, fmt.Errorf("ask for status: %w", stock.ErrNotFound)
	}
	r, err := l.lock(ctx, tx, id)
	if err != nil {
		return Record{}, fmt.Errorf("ask for status: %w", err)
	}
	e, err := l.entry(ctx, tx, &r)
	if err != nil {
		return Record{}, fmt.Errorf("ask for status: %w", err)
	}
	return Record{Entry: e, SKU: r.sku, Epoch: r.epoch, Void: r.state == void}, nil
}
