package sqlledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/firstcome/firstcome/stock"
)

// Entries implements [stock.Ledger].
func (l *Ledger) Entries(ctx context.Context, sku string, after stock.ID, n int) ([]stock.Entry, error) {
	if n < 1 {
		return nil, fmt.Errorf("read entries: %w: n is %d, want at least 1", stock.ErrInvalid, n)
	}
	first, last := poolRange(sku)
	if compareIDs(after, first) < 0 {
		after = first
	}
	rows, err := l.rows(ctx, l.db, l.q.entries, after.String(), last.String(), sku, n)
	if err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	entries := make([]stock.Entry, len(rows))
	for i := range rows {
		entries[i] = rows[i].entry()
	}
	return entries, nil
}

// Totals implements [stock.Ledger]. It reads every row of the pool.
func (l *Ledger) Totals(ctx context.Context, sku string) (stock.Totals, error) {
	var t stock.Totals
	after, last := poolRange(sku)
	// One statement, so one snapshot at every level of isolation.
	err := one(ctx, l.db, l.q.totals, []any{after.String(), last.String(), sku}, []any{&t.Total, &t.Held, &t.Sold})
	if errors.Is(err, errNoRow) {
		return stock.Totals{}, fmt.Errorf("read totals: %w", stock.ErrUnknownSKU)
	}
	if err != nil {
		return stock.Totals{}, fmt.Errorf("read totals: %w", err)
	}
	return t, nil
}
