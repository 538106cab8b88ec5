package sqlledger

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
		if entries[i], err = l.entry(ctx, l.db, &rows[i]); err != nil {
			return nil, fmt.Errorf("read entries: %w", err)
		}
	}
	return entries, nil
}

// Pools implements [stock.Ledger], in the order of names. It is also what a relay
// of the pools' journals may go by.
func (l *Ledger) Pools(ctx context.Context) (names []string, err error) {
	rows, err := l.db.QueryContext(ctx, l.q.listPools)
	if err != nil {
		return nil, fmt.Errorf("list pools: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("list pools: %w", err)
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// Find implements [stock.Ledger]. It does not wait for open transactions; a
// single ID that is asked for after a lost COMMIT is [Ledger.Status]' matter. An
// entry of which there is no row has its ID alone; a hold that was given up
// before its order came is Expired. An ID of another pool is a
// [*stock.MismatchError].
func (l *Ledger) Find(ctx context.Context, sku string, ids []stock.ID) ([]stock.Entry, error) {
	if err := checkPool(sku, ids); err != nil {
		return nil, fmt.Errorf("find: %w", err)
	}
	found := make(map[stock.ID]stock.Entry, len(ids))
	for some := range slices.Chunk(sortedIDs(ids), maxBatch) {
		some = padded(some)
		rows, err := l.rows(ctx, l.db, l.list(l.q.find, "?", len(some)), texts(some)...)
		if err != nil {
			return nil, fmt.Errorf("find: %w", err)
		}
		for i := range rows {
			if found[rows[i].id], err = l.entry(ctx, l.db, &rows[i]); err != nil {
				return nil, fmt.Errorf("find: %w", err)
			}
		}
	}
	entries := make([]stock.Entry, len(ids))
	for i, id := range ids {
		entries[i] = found[id]
		entries[i].ID = id
	}
	return entries, nil
}

// Totals implements [stock.Ledger]. It reads every row of the pool once, in the
// database; what comes back is a row for each item and each content of baskets.
func (l *Ledger) Totals(ctx context.Context, sku string) (stock.Totals, error) {
	t, err := l.totals(ctx, sku)
	if err != nil {
		return stock.Totals{}, fmt.Errorf("read totals: %w", err)
	}
	return t, nil
}

func (l *Ledger) totals(ctx context.Context, sku string) (t stock.Totals, err error) {
	y, err := l.layout(ctx, l.db, sku)
	if err != nil {
		return stock.Totals{}, err
	}
	after, last := poolRange(sku)
	// One statement, so one snapshot at every level of isolation.
	rows, err := l.db.QueryContext(ctx, l.q.totals, sku, sku, after.String(), last.String(), sku)
	if err != nil {
		return stock.Totals{}, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	sums := tally{layout: y, held: make([]int64, y.items()), sold: make([]int64, y.items())}
	for rows.Next() {
		var kind string
		var text []byte
		var released string
		var n, units int64
		if err := rows.Scan(&kind, &text, &released, &n, &units); err != nil {
			return stock.Totals{}, err
		}
		if err := sums.add(kind, text, released, n, units); err != nil {
			return stock.Totals{}, err
		}
	}
	return sums.totals(), rows.Err()
}

// tally adds up the rows of the totals statement.
type tally struct {
	layout     *layout
	terms      stock.Terms
	held, sold []int64 // per item
}

func (y *tally) add(kind string, text []byte, released string, n, units int64) error {
	switch kind {
	case "terms":
		terms, err := decodeTerms(y.layout.pool.SKU, text)
		y.terms = terms
		return err
	case "sold":
		if n < 0 || n >= int64(len(y.sold)) {
			return fmt.Errorf("item %d is not of this pool", n)
		}
		y.sold[n] = units
		return nil
	default:
		return y.addHeld(&row{asked: string(text), released: released, quantity: units}, n)
	}
}

// addHeld adds n rows of the same content; where the pool is one SKU the row is
// their sum.
func (y *tally) addHeld(r *row, n int64) error {
	if len(y.layout.pool.Items) == 0 {
		n = 1
	}
	_, now, err := y.layout.content(r)
	if err != nil {
		return err
	}
	for i := range now {
		y.held[i] += n * now[i]
	}
	return nil
}

func (y *tally) totals() stock.Totals {
	t := stock.Totals{Total: y.terms.Total, Held: sum(y.held), Sold: sum(y.sold)}
	for i, item := range y.terms.Items {
		t.Items = append(t.Items, stock.ItemTotals{SKU: item.SKU, Total: item.Total, Held: y.held[i], Sold: y.sold[i]})
	}
	return t
}
