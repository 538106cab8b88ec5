package sqlledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/firstcome/firstcome/stock"
)

// layout is what never changes about a pool: its items in their order, their
// stripes, and the policy on unpaid orders.
type layout struct {
	pool    stock.Pool // as it was opened
	stripes int64      // of the item that has the most
}

// layout returns a pool's layout, or [stock.ErrUnknownSKU]. A process that has
// not opened the pool reads it once, in the transaction that comes first.
func (l *Ledger) layout(ctx context.Context, tx Executor, sku string) (*layout, error) {
	if known, ok := l.layouts.Load(sku); ok {
		return known.(*layout), nil
	}
	p, err := l.readPool(ctx, tx, sku)
	return p.layout, err
}

// items is how many items are counted: one where the pool is one SKU.
func (y *layout) items() int { return max(1, len(y.pool.Items)) }

func (y *layout) totalOf(item int) int64 { return totalOf(&y.pool, item) }

// totalOf returns an item's total.
func totalOf(p *stock.Pool, item int) int64 {
	if len(p.Items) == 0 {
		return p.Total
	}
	return p.Items[item].Total
}

// stripesOf is over how many stripes an item's counter is spread.
func (y *layout) stripesOf(item int) int64 { return stripesFor(y.stripes, y.totalOf(item)) }

// stripesFor is over how many stripes, at most, a total is spread.
func stripesFor(most, total int64) int64 { return max(1, min(most, total/unitsPerStripe)) }

// mismatch is the error of a row that has other content than it is asked for.
func (y *layout) mismatch() error {
	if len(y.pool.Items) > 0 {
		return &stock.MismatchError{Field: "lines"}
	}
	return &stock.MismatchError{Field: "quantity"}
}

// name is an item's SKU, or nothing where the pool is one SKU.
func (y *layout) name(item int) string {
	if len(y.pool.Items) == 0 {
		return ""
	}
	return y.pool.Items[item].SKU
}

// named says which item a refusal is about, in a pool with several.
func named(item string, err error) error {
	if item == "" || err == nil {
		return err
	}
	return &stock.ItemError{SKU: item, Err: err}
}

// order returns the units per item that a hold was made for, and those that a
// part confirmation has released.
func (y *layout) order(h *stock.Hold) (asked, released []int64, err error) {
	lines := h.Lines
	switch {
	case len(lines) > 0:
	case len(y.pool.Items) > 0:
		return nil, nil, fmt.Errorf("%w: Lines is empty, and the pool has Items", stock.ErrInvalid)
	default:
		lines = []stock.Line{{Quantity: h.Quantity}}
	}
	if asked, err = y.pool.Basket(lines); err != nil {
		return nil, nil, err
	}
	released = make([]int64, y.items())
	if len(h.Released) > 0 {
		if released, err = y.pool.Basket(h.Released); err != nil {
			return nil, nil, err
		}
	}
	for i := range asked {
		asked[i] += released[i]
	}
	if n := sum(asked); n > stock.MaxQuantity {
		return nil, nil, fmt.Errorf("%w: Quantity and Released are %d, want at most 2^53-1", stock.ErrInvalid, n)
	}
	return asked, released, nil
}

// column writes units per item as a row keeps them: nothing for a pool that is
// one SKU, where the row's numbers say it.
func (y *layout) column(units []int64) string {
	if len(y.pool.Items) == 0 {
		return ""
	}
	var b strings.Builder
	for i, n := range units {
		if n == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(i))
		b.WriteByte(':')
		b.WriteString(strconv.FormatInt(n, 10))
	}
	return b.String()
}

// parse is the reverse of column. The number is the row's own.
func (y *layout) parse(column string, number int64) ([]int64, error) {
	if len(y.pool.Items) == 0 {
		return []int64{number}, nil
	}
	units := make([]int64, len(y.pool.Items))
	if column == "" {
		return units, nil
	}
	for element := range strings.SplitSeq(column, ",") {
		item, n, _ := strings.Cut(element, ":")
		i, err := strconv.Atoi(item)
		if err != nil || i < 0 || i >= len(units) {
			return nil, fmt.Errorf("read the units: %q is not of this pool", column)
		}
		if units[i], err = strconv.ParseInt(n, 10, 64); err != nil {
			return nil, fmt.Errorf("read the units: %w", err)
		}
	}
	return units, nil
}

// content returns the units per item that a row was made for, and those that
// it stands for now.
func (y *layout) content(r *row) (asked, now []int64, err error) {
	asked, err = y.parse(r.asked, r.quantity)
	released, err2 := y.parse(r.released, r.releasedUnits)
	if err := errors.Join(err, err2); err != nil {
		return nil, nil, err
	}
	return asked, minus(asked, released), nil
}

// units returns where a row's units of each item are counted first.
func (y *layout) units(r *row, perItem []int64) []units {
	var out []units
	for i, n := range perItem {
		if n > 0 {
			out = append(out, units{name: y.name(i), sku: r.sku, item: i, stripe: r.stripe % y.stripesOf(i), quantity: n})
		}
	}
	return out
}

// sum and minus are arithmetic on units per item.
func sum(units []int64) (n int64) {
	for _, u := range units {
		n += u
	}
	return n
}

func minus(a, b []int64) []int64 {
	out := slices.Clone(a)
	for i := range out {
		out[i] -= b[i]
	}
	return out
}
