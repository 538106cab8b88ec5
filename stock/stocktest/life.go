package stocktest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// lines is a request for a basket.
func (b *bench) lines(buyer string, lines ...stock.Line) stock.Request {
	r := b.ask(buyer, 0)
	r.Lines = lines
	return r
}

// two makes a pool of two SKUs, a and b.
func two(a, b int64) func(p *stock.Pool) {
	return func(p *stock.Pool) {
		p.Total, p.Items = 0, []stock.Item{{SKU: "a", Total: a}, {SKU: "b", Total: b}}
	}
}

// items fails the test unless the SKUs a and b have so many free.
func (b *bench) items(freeA, freeB int64) {
	b.t.Helper()
	l, err := b.store.Levels(b.t.Context(), b.pool.SKU)
	if err != nil || len(l.Items) != 2 || l.Items[0].Free != freeA || l.Items[1].Free != freeB {
		b.t.Fatalf("levels %+v, %v; want %d of a and %d of b free", l, err, freeA, freeB)
	}
}

func (b *bench) confirm(id stock.ID, part ...stock.Line) (stock.Hold, error) {
	return b.store.Confirm(b.t.Context(), id, part...)
}

func part(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Limit = 3 })
	r := b.ask("ann", 3)
	b.reserve(r)
	hold, err := b.confirm(r.ID, stock.Line{Quantity: 2})
	if err != nil || hold.State != stock.Sold || hold.Quantity != 2 || hold.Asked() != 3 {
		t.Fatalf("got %+v, %v", hold, err)
	}
	b.levels(8, 0, 2)
	if again := b.reserve(r); !again.Repeated || again.State != stock.Sold || again.Quantity != 2 {
		t.Errorf("the same request again: %+v", again)
	}
	b.reserve(b.ask("ann", 1)) // its allowance is back too
	b.refused(b.ask("ann", 1), stock.ErrLimit)
	b.want(b.store.Return, r.ID, stock.Returned, nil)
	b.levels(9, 1, 0)
}

func otherPart(t *testing.T, h Harness) {
	b := h.open(t, nil)
	r := b.ask("ann", 3)
	b.reserve(r)
	one, three, four := stock.Line{Quantity: 1}, stock.Line{Quantity: 3}, stock.Line{SKU: b.pool.SKU, Quantity: 4}
	for _, p := range []stock.Line{four, {Quantity: 0}, {Quantity: -1}, {SKU: "x", Quantity: 1}} {
		if hold, err := b.confirm(r.ID, p); !errors.Is(err, stock.ErrMismatch) && !errors.Is(err, stock.ErrInvalid) && !errors.Is(err, stock.ErrUnknownSKU) {
			t.Errorf("%+v: %+v, %v", p, hold, err)
		}
	}
	b.levels(7, 3, 0)
	for i := range 2 {
		if hold, err := b.confirm(r.ID, one); err != nil || hold.Quantity != 1 || hold.Repeated != (i == 1) {
			t.Fatalf("got %+v, %v", hold, err)
		}
	}
	for _, parts := range [][]stock.Line{{three}, nil, {{Quantity: 2}}} {
		if _, err := b.confirm(r.ID, parts...); !errors.Is(err, stock.ErrMismatch) {
			t.Errorf("%+v: %v", parts, err)
		}
	}
	b.levels(9, 0, 1)
}

func basket(t *testing.T, h Harness) {
	b := h.open(t, two(10, 1))
	sold := b.lines("bob", stock.Line{SKU: "b", Quantity: 1})
	b.reserve(sold)
	var item *stock.ItemError
	ask := b.lines("ann", stock.Line{SKU: "a", Quantity: 2}, stock.Line{SKU: "b", Quantity: 1})
	if err := b.refusal(ask, stock.ErrAllHeld); !errors.As(err, &item) || item.SKU != "b" {
		t.Errorf("got %v", err)
	}
	b.items(10, 0)
	b.want(whole(b.store.Confirm), sold.ID, stock.Sold, nil)
	if err := b.refusal(ask, stock.ErrSoldOut); !errors.As(err, &item) || item.SKU != "b" {
		t.Errorf("got %v", err)
	}
	b.want(b.store.Return, sold.ID, stock.Returned, nil)
	hold := b.reserve(ask)
	want := []stock.Line{{SKU: "a", Quantity: 2}, {SKU: "b", Quantity: 1}}
	if hold.Quantity != 3 || !slices.Equal(hold.Lines, want) {
		t.Fatalf("got %+v", hold)
	}
	b.items(8, 0)
	hold, err := b.confirm(ask.ID, stock.Line{SKU: "a", Quantity: 1}, stock.Line{SKU: "b", Quantity: 1})
	if err != nil || hold.Quantity != 2 || !slices.Equal(hold.Released, []stock.Line{{SKU: "a", Quantity: 1}}) {
		t.Fatalf("got %+v, %v", hold, err)
	}
	b.items(9, 0)
	b.levels(9, 0, 2)
	b.want(b.store.Return, ask.ID, stock.Returned, nil)
	b.items(10, 1)
	b.refused(b.ask("ann", 1), stock.ErrInvalid) // of what?
}

func twoLines(t *testing.T, h Harness) {
	b := h.open(t, two(3, 3))
	a := func(n int64) stock.Line { return stock.Line{SKU: "a", Quantity: n} }
	b.refused(b.lines("ann", a(2), a(2)), stock.ErrSoldOut)
	r := b.lines("ann", a(1), stock.Line{SKU: "b", Quantity: 1}, a(2))
	b.reserve(r)
	b.items(0, 2)
	r.Lines = []stock.Line{{SKU: "b", Quantity: 1}, a(3)} // the same, said otherwise
	if again := b.reserve(r); !again.Repeated {
		t.Errorf("got %+v", again)
	}
	r.Lines = []stock.Line{a(3)}
	var mismatch *stock.MismatchError
	if err := b.refusal(r, stock.ErrMismatch); !errors.As(err, &mismatch) || mismatch.Field != "lines" {
		t.Errorf("got %v", err)
	}
	b.items(0, 2)
}

func twoPools(t *testing.T, h Harness) {
	b := h.open(t, two(3, 3))
	other := h.open(t, nil)
	var item *stock.ItemError
	r := b.lines("ann", stock.Line{SKU: "a", Quantity: 1}, stock.Line{SKU: other.pool.SKU, Quantity: 1})
	if err := b.refusal(r, stock.ErrUnknownSKU); !errors.As(err, &item) || item.SKU != other.pool.SKU {
		t.Errorf("got %v", err)
	}
	b.items(3, 3)
	single := other.lines("ann", stock.Line{SKU: "a", Quantity: 1})
	if err := other.refusal(single, stock.ErrUnknownSKU); !errors.As(err, &item) || item.SKU != "a" {
		t.Errorf("got %v", err)
	}
	other.levels(10, 0, 0)
	other.reserve(other.lines("ann", stock.Line{SKU: other.pool.SKU, Quantity: 1}, stock.Line{SKU: other.pool.SKU, Quantity: 1}))
	other.levels(8, 2, 0)
}

func basketsAtOnce(t *testing.T, h Harness) {
	b := h.open(t, two(50, 50))
	var wg sync.WaitGroup
	for i := range 200 {
		lines := []stock.Line{{SKU: "a", Quantity: 1}, {SKU: "b", Quantity: 1}}
		if i%2 == 1 {
			slices.Reverse(lines)
		}
		wg.Go(func() {
			if _, err := b.store.Reserve(t.Context(), b.lines("buyer-"+string(rune('a'+i%26)), lines...)); err != nil && !errors.Is(err, stock.ErrAllHeld) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	b.items(0, 0)
	b.levels(0, 100, 0)
}

func itemLimit(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) {
		p.Total, p.Limit = 0, 4
		p.Items = []stock.Item{{SKU: "a", Total: 10}, {SKU: "b", Total: 10, Limit: 1}}
	})
	b.reserve(b.lines("ann", stock.Line{SKU: "a", Quantity: 1}, stock.Line{SKU: "b", Quantity: 1}))
	var item *stock.ItemError
	var limit *stock.LimitError
	err := b.refusal(b.lines("ann", stock.Line{SKU: "b", Quantity: 1}), stock.ErrLimit)
	if !errors.As(err, &item) || item.SKU != "b" || !errors.As(err, &limit) || limit.Remaining != 0 {
		t.Errorf("got %v", err)
	}
	if err := b.refusal(b.lines("ann", stock.Line{SKU: "a", Quantity: 3}), stock.ErrLimit); !errors.As(err, &limit) || limit.Remaining != 2 {
		t.Errorf("got %v", err)
	}
	b.reserve(b.lines("ann", stock.Line{SKU: "a", Quantity: 2}))
	b.items(7, 9)
}

func lateIfFree(t *testing.T, h Harness) {
	if h.Ledger {
		t.Skip("with a ledger it is the ledger that decides")
	}
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Hold, p.Late = 3, brief, stock.LateIfFree })
	id := b.reserve(b.ask("ann", 2)).ID
	b.Pass(t, brief)
	for i := range 2 {
		hold, err := b.confirm(id)
		if err != nil || hold.State != stock.Sold || !hold.Late || hold.Repeated != (i == 1) {
			t.Fatalf("got %+v, %v", hold, err)
		}
	}
	b.levels(1, 0, 2)
	b.want(b.store.Return, id, stock.Returned, nil)
	b.levels(3, 0, 0)
}

func lateTakesOver(t *testing.T, h Harness) {
	if h.Ledger {
		t.Skip("with a ledger it is the ledger that decides")
	}
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Hold, p.Late = 1, brief, stock.LateIfFree })
	late := b.reserve(b.ask("ann", 1)).ID
	b.Pass(t, brief)
	b.reserve(b.ask("bob", 1))
	b.Pass(t, brief)
	if hold, err := b.confirm(late); err != nil || !hold.Late {
		t.Fatalf("bob's hold has ended too, and the answer is %+v, %v", hold, err)
	}
	b.levels(0, 0, 1)
}

func lateNoStock(t *testing.T, h Harness) {
	if h.Ledger {
		t.Skip("with a ledger it is the ledger that decides")
	}
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Hold, p.Late = 1, brief, stock.LateIfFree })
	late := b.reserve(b.ask("ann", 1)).ID
	b.Pass(t, brief)
	other := b.reserve(b.ask("bob", 1)).ID
	b.want(whole(b.store.Confirm), late, 0, stock.ErrLate)
	b.want(b.store.Cancel, other, stock.Cancelled, nil)
	// A unit is free again, yet the buyer has been told and paid back.
	b.want(whole(b.store.Confirm), late, 0, stock.ErrLate)
	b.levels(1, 0, 0)
}

func extended(t *testing.T, h Harness) {
	if h.Ledger {
		t.Skip("with a ledger nothing ends by time alone")
	}
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Hold = 1, brief })
	extend := func(until time.Time) func(ctx context.Context, id stock.ID) (stock.Hold, error) {
		return func(ctx context.Context, id stock.ID) (stock.Hold, error) { return b.store.Extend(ctx, id, until) }
	}
	first := b.reserve(b.ask("ann", 1))
	until := first.Expires.Add(2 * brief)
	for i := range 2 {
		if hold := b.want(extend(until), first.ID, stock.Held, nil); !hold.Expires.Equal(until) || hold.Repeated != (i == 1) {
			t.Fatalf("got %+v", hold)
		}
	}
	if hold := b.want(extend(first.Expires), first.ID, stock.Held, nil); !hold.Expires.Equal(until) {
		t.Fatalf("it was shortened to %v", hold.Expires)
	}
	b.Pass(t, brief)
	var held *stock.AllHeldError
	if err := b.refusal(b.ask("bob", 1), stock.ErrAllHeld); !errors.As(err, &held) || held.RetryAfter > 2*brief || held.RetryAfter <= 0 {
		t.Errorf("got %v", err)
	}
	b.Pass(t, 2*brief)
	b.want(extend(until.Add(time.Hour)), first.ID, 0, stock.ErrExpired)
	b.reserve(b.ask("bob", 1))
	b.want(b.store.Lookup, first.ID, stock.Expired, nil)
	b.want(extend(time.Time{}), first.ID, 0, stock.ErrInvalid)
	b.levels(0, 1, 0)
}

// adjust changes the pool, of whatever version it is, and returns what it did.
func (b *bench) adjust(edit func(a *stock.Adjustment)) (stock.Adjustment, stock.Levels, error) {
	b.t.Helper()
	l, err := b.store.Levels(b.t.Context(), b.pool.SKU)
	if err != nil {
		b.t.Fatal(err)
	}
	a := stock.Adjustment{ID: Claim(), SKU: b.pool.SKU, Version: l.Version}
	edit(&a)
	l, err = b.store.Adjust(b.t.Context(), a)
	return a, l, err
}

func (b *bench) mustAdjust(edit func(a *stock.Adjustment)) stock.Adjustment {
	b.t.Helper()
	a, _, err := b.adjust(edit)
	if err != nil {
		b.t.Fatalf("adjust: %v", err)
	}
	return a
}

func add(n int64) func(a *stock.Adjustment) {
	return func(a *stock.Adjustment) { a.Add = []stock.Line{{Quantity: n}} }
}

func added(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Total = 1 })
	id := b.reserve(b.ask("ann", 1)).ID
	b.want(whole(b.store.Confirm), id, stock.Sold, nil)
	b.refused(b.ask("bob", 1), stock.ErrSoldOut)
	a := b.mustAdjust(add(2))
	b.levels(2, 0, 1)
	for range 2 { // its answer was lost
		if l, err := b.store.Adjust(t.Context(), a); err != nil || l.Total != 3 || l.Version != 2 {
			t.Fatalf("again: %+v, %v", l, err)
		}
	}
	stale := a
	stale.ID = Claim()
	var version *stock.VersionError
	if _, err := b.store.Adjust(t.Context(), stale); !errors.As(err, &version) || version.Version != 2 {
		t.Errorf("a stale one: %v", err)
	}
	b.reserve(b.ask("bob", 2))
	b.levels(0, 2, 1)
	if l, err := b.store.Open(t.Context(), b.pool); err != nil || l.Total != 3 {
		t.Errorf("opened again with its first terms: %+v, %v", l, err)
	}
	for name, bad := range map[string]func(a *stock.Adjustment){
		"nothing":     func(*stock.Adjustment) {},
		"no ID":       func(a *stock.Adjustment) { a.ID, a.Pause = [16]byte{}, true },
		"no version":  func(a *stock.Adjustment) { a.Version, a.Pause = 0, true },
		"both":        func(a *stock.Adjustment) { a.Pause, a.Resume = true, true },
		"zero":        add(0),
		"too much":    add(stock.MaxQuantity),
		"unknown SKU": func(a *stock.Adjustment) { a.Add = []stock.Line{{SKU: "x", Quantity: 1}} },
	} {
		if _, l, err := b.adjust(bad); !errors.Is(err, stock.ErrInvalid) && !errors.Is(err, stock.ErrUnknownSKU) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	b.levels(0, 2, 1)
}

func takenOut(t *testing.T, h Harness) {
	b := h.open(t, nil)
	id := b.reserve(b.ask("ann", 9)).ID
	var over *stock.OverError
	if _, _, err := b.adjust(add(-2)); !errors.As(err, &over) || over.By != 1 {
		t.Fatalf("got %v", err)
	}
	b.levels(1, 9, 0)
	b.mustAdjust(add(-1))
	b.levels(0, 9, 0)
	b.mustAdjust(func(a *stock.Adjustment) { add(-4)(a); a.Force = true })
	l, err := b.store.Levels(t.Context(), b.pool.SKU)
	if err != nil || l.Free != 0 || l.Over != 4 || l.Total != 5 || l.Held != 9 {
		t.Fatalf("got %+v, %v", l, err)
	}
	if hold, err := b.confirm(id, stock.Line{Quantity: 4}); err != nil || hold.Quantity != 4 {
		t.Fatalf("got %+v, %v", hold, err)
	}
	b.levels(1, 0, 4) // five came back, four of them were owed
}

func paused(t *testing.T, h Harness) {
	b := h.open(t, nil)
	r := b.ask("ann", 1)
	b.reserve(r)
	b.mustAdjust(func(a *stock.Adjustment) { a.Pause = true })
	b.refused(b.ask("bob", 1), stock.ErrPaused)
	b.reserve(r)
	b.want(whole(b.store.Confirm), r.ID, stock.Sold, nil)
	if l, err := b.store.Levels(t.Context(), b.pool.SKU); err != nil || !l.Paused {
		t.Errorf("got %+v, %v", l, err)
	}
	b.mustAdjust(func(a *stock.Adjustment) { a.Resume = true })
	b.reserve(b.ask("bob", 1))
	b.levels(8, 1, 1)
}

func reopened(t *testing.T, h Harness) {
	b := h.open(t, nil)
	now := h.Now(t)
	set := func(opens, closes *time.Time) {
		t.Helper()
		b.mustAdjust(func(a *stock.Adjustment) { a.Opens, a.Closes = opens, closes })
	}
	later, past, none := now.Add(10*time.Minute), now.Add(-time.Minute), time.Time{}
	set(&later, nil)
	b.refused(b.ask("ann", 1), stock.ErrNotOpen)
	set(&none, &past)
	b.refused(b.ask("ann", 1), stock.ErrClosed)
	if _, _, err := b.adjust(func(a *stock.Adjustment) { a.Opens = &later }); !errors.Is(err, stock.ErrInvalid) {
		t.Errorf("opens after it closes: %v", err)
	}
	set(nil, &later)
	b.reserve(b.ask("ann", 1))
	b.levels(9, 1, 0)
}

func retires(t *testing.T, h Harness) {
	b := h.open(t, nil)
	if h.Ledger {
		t.Skip("what the ledger has not sold is no sale: see the driver's own tests")
	}
	sold, held := b.reserve(b.ask("ann", 2)).ID, b.reserve(b.ask("bob", 3)).ID
	b.want(whole(b.store.Confirm), sold, stock.Sold, nil)
	audit, err := b.store.Audit(t.Context(), b.pool.SKU)
	if err != nil || !audit.Clean() || audit.Held != 3 || audit.Sold != 2 || audit.Looked != 2 || audit.Changed {
		t.Fatalf("audit %+v, %v", audit, err)
	}
	inUse := func(why string) {
		t.Helper()
		if err := b.store.Retire(t.Context(), b.pool.SKU); !errors.Is(err, stock.ErrInUse) {
			t.Fatalf("%s: %v", why, err)
		}
	}
	inUse("it is open")
	b.mustAdjust(func(a *stock.Adjustment) { a.Pause = true })
	inUse("units are held")
	b.want(b.store.Cancel, held, stock.Cancelled, nil)
	if journal, ok := b.store.(stock.JournalReader); ok {
		entries, err := journal.ReadJournal(t.Context(), b.pool.SKU, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) > 0 {
			inUse("its journal is not relayed")
			for _, entry := range entries {
				if err := journal.TrimJournal(t.Context(), b.pool.SKU, entry.Position); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for range 2 {
		if err := b.store.Retire(t.Context(), b.pool.SKU); err != nil {
			t.Fatalf("retire: %v", err)
		}
	}
	b.refused(b.ask("cay", 1), stock.ErrRetired)
	if _, err := b.store.Open(t.Context(), b.pool); !errors.Is(err, stock.ErrRetired) {
		t.Errorf("open: %v", err)
	}
}
