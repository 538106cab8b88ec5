package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/firstcome/firstcome/stock"
)

func TestBasket_IsPlacedSoldAndReturnedItemByItem(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.openFair(t, "fair", 100, 5, 3)
		id := e.placedBasket(t, "fair", line("c", 1), line("a", 20))
		e.auditItems(t, "fair", [2]int64{20, 0}, [2]int64{0, 0}, [2]int64{1, 0})
		want := []stock.Line{line("a", 20), line("c", 1)}
		if got := e.found(t, "fair", id); got.Quantity != 21 || !slices.Equal(got.Lines, want) || got.Released != nil || got.State != stock.Held {
			t.Errorf("found %+v", got)
		}
		if got, err := e.Status(ctx, id); err != nil || !slices.Equal(got.Lines, want) {
			t.Errorf("status %+v, %v", got, err)
		}
		for range 2 {
			wantErr(t, "sell", e.sellOne(ctx, id), nil)
			e.auditItems(t, "fair", [2]int64{0, 20}, [2]int64{0, 0}, [2]int64{0, 1})
		}
		if entries, err := e.Entries(ctx, "fair", stock.ID{}, 10); err != nil || len(entries) != 1 || !slices.Equal(entries[0].Lines, want) {
			t.Errorf("entries %+v, %v", entries, err)
		}
		for range 2 {
			wantErr(t, "return", e.returnOne(ctx, id), nil)
			e.auditItems(t, "fair", [2]int64{0, 0}, [2]int64{0, 0}, [2]int64{0, 0})
		}
	})
}

func TestBasket_TheSameAgainIsSuccessAndOtherLinesAreAMismatch(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.openFair(t, "fair", 10, 10)
		hold := e.basket("fair", "ada", line("a", 2), line("b", 1))
		for i, lines := range [][]stock.Line{hold.Lines, {line("b", 1), line("a", 2)}, {line("a", 1), line("b", 1), line("a", 1)}} {
			again := hold
			again.Lines = lines
			if existed, err := e.place(t.Context(), again, "ada"); err != nil || existed != (i > 0) {
				t.Errorf("try %d: existed %v, %v", i, existed, err)
			}
		}
		for _, lines := range [][]stock.Line{{line("a", 1), line("b", 2)}, {line("a", 3)}, {line("a", 2), line("b", 2)}} {
			other := e.basket("fair", "ada", lines...)
			other.ID = hold.ID
			_, err := e.place(t.Context(), other, "ada")
			wantField(t, fmt.Sprint(lines), err, "lines")
		}
		e.auditItems(t, "fair", [2]int64{2, 0}, [2]int64{1, 0})
	})
}

func TestBasket_WhatIsNotInThePoolIsRefusedByNameBeforeAnyWrite(t *testing.T) {
	// Case 17.
	each(t, nil, func(t *testing.T, e *env) {
		e.openFair(t, "fair", 10, 10)
		e.open(t, "ticket", 10)
		for name, c := range map[string]struct {
			hold stock.Hold
			item string
		}{
			"another pool's SKU": {e.basket("fair", "ada", line("a", 1), line("ticket", 1)), "ticket"},
			"the pool's name":    {e.basket("fair", "ada", line("fair", 1)), "fair"},
			"in a pool of one":   {e.basket("ticket", "ada", line("ticket", 1), line("a", 1)), "a"},
		} {
			_, err := e.place(t.Context(), c.hold, "ada")
			wantItem(t, name, err, c.item, stock.ErrUnknownSKU)
			wantErr(t, name, e.sellOne(t.Context(), c.hold.ID), stock.ErrNotFound)
		}
		short, none := e.basket("fair", "ada", line("a", 1), line("b", 1)), e.basket("fair", "ada", line("a", 1))
		bare, unnamed := e.hold("fair", "ada", 1), e.basket("fair", "ada", line("", 1))
		short.Quantity, none.Quantity = 1, 0
		for name, hold := range map[string]stock.Hold{
			"lines of more than the quantity": short, "no quantity": none, "no lines": bare, "a line without SKU": unnamed,
		} {
			_, err := e.place(t.Context(), hold, "ada")
			wantErr(t, name, err, stock.ErrInvalid)
		}
		e.auditItems(t, "fair", [2]int64{0, 0}, [2]int64{0, 0})
		one := e.basket("ticket", "ada", line("ticket", 2))
		if existed, err := e.place(t.Context(), one, "ada"); err != nil || existed {
			t.Errorf("a line in a pool of one SKU: existed %v, %v", existed, err)
		}
		e.audit(t, "ticket", 2, 0)
	})
}

func TestBasket_OfWhichOneItemIsGoneSellsNothingAndNamesIt(t *testing.T) {
	// Case 16, in the ledger.
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.openFair(t, "fair", 100, 20, 100)
		first := e.placedBasket(t, "fair", line("b", 19))
		second := e.placedBasket(t, "fair", line("a", 2), line("b", 2), line("c", 2))
		fits := e.placedBasket(t, "fair", line("a", 3), line("b", 1))
		wantErr(t, "first", e.sellOne(ctx, first), nil)
		err := e.in(ctx, func(tx *sql.Tx) error { // and commit
			wantItem(t, "second", e.Sell(ctx, tx, second), "b", stock.ErrLedger)
			wantItem(t, "all", e.SellAll(ctx, tx, second, fits), "b", stock.ErrLedger)
			return nil
		})
		wantErr(t, "commit", err, nil)
		if s := e.state(t, second); s != held {
			t.Errorf("the refused basket is %q, want held", s)
		}
		e.auditItems(t, "fair", [2]int64{5, 0}, [2]int64{3, 19}, [2]int64{2, 0})
		wantErr(t, "what fits", e.sellOne(ctx, fits), nil)
		e.auditItems(t, "fair", [2]int64{2, 3}, [2]int64{2, 20}, [2]int64{2, 0})
		wantErr(t, "return", e.returnOne(ctx, first), nil)
		wantErr(t, "second, then", e.sellOne(ctx, second), nil)
		e.auditItems(t, "fair", [2]int64{0, 5}, [2]int64{0, 3}, [2]int64{0, 2})
	})
}

func TestBasket_ManyInEveryOrderAtOnceDoNotDeadlock(t *testing.T) {
	// Cases 18 and 32. No retries here: the first deadlock fails the test.
	each(t, &Options{Stripes: 2}, func(t *testing.T, e *env) {
		e.openFair(t, "fair", 1000, 1000, 1000)
		const baskets = 32
		orders := [][]stock.Line{
			{line("a", 1), line("b", 1)}, {line("b", 1), line("a", 1)},
			{line("c", 2), line("a", 1), line("b", 1)}, {line("b", 1), line("c", 2), line("a", 1)},
		}
		ids := make([]stock.ID, baskets)
		for i := range ids {
			ids[i] = e.placedBasket(t, "fair", orders[i%len(orders)]...)
		}
		group, ctx := errgroup.WithContext(t.Context())
		group.SetLimit(8)
		for i := range baskets / 4 {
			group.Go(func() error {
				return e.once(ctx, func(tx *sql.Tx) error { return e.Sell(ctx, tx, ids[4*i]) })
			})
			group.Go(func() error {
				return e.once(ctx, func(tx *sql.Tx) error { return e.Sell(ctx, tx, ids[4*i+1]) })
			})
			group.Go(func() error {
				return e.once(ctx, func(tx *sql.Tx) error { return e.SellAll(ctx, tx, ids[4*i+3], ids[4*i+2]) })
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		e.auditItems(t, "fair", [2]int64{0, baskets}, [2]int64{0, baskets}, [2]int64{0, baskets})
	})
}

// once is a transaction at the server's own level that is not tried again.
func (e *env) once(ctx context.Context, work func(tx *sql.Tx) error) error {
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := work(tx); err != nil {
		return err
	}
	return tx.Commit()
}

func TestBasket_ADeadlockThatTheDatabaseReportsAllTheSameIsTriedAgain(t *testing.T) {
	// Case 32: two transactions sell the same two one by one, in another order.
	eachServer(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.openFair(t, "fair", 100, 100)
		ids := []stock.ID{e.placedBasket(t, "fair", line("a", 1), line("b", 1)), e.placedBasket(t, "fair", line("b", 1), line("a", 1))}
		var met sync.WaitGroup
		met.Add(2)
		var tries atomic.Int64
		sell := func(first, second stock.ID) error {
			meet := sync.OnceFunc(func() { met.Done(); met.Wait() })
			return e.InTx(ctx, func(tx *sql.Tx) error {
				tries.Add(1)
				if _, err := e.lock(ctx, tx, first); err != nil {
					return err
				}
				meet()
				if err := e.Sell(ctx, tx, first); err != nil {
					return err
				}
				return e.Sell(ctx, tx, second)
			})
		}
		var group errgroup.Group
		group.Go(func() error { return sell(ids[0], ids[1]) })
		group.Go(func() error { return sell(ids[1], ids[0]) })
		wantErr(t, "both", group.Wait(), nil)
		if tries.Load() < 3 {
			t.Errorf("%d tries: there was no deadlock", tries.Load())
		}
		e.auditItems(t, "fair", [2]int64{0, 2}, [2]int64{0, 2})
	})
}

func TestBasket_MoreHeldThanThereIsSellsWholeBasketsAndNoMore(t *testing.T) {
	each(t, &Options{Stripes: 2}, func(t *testing.T, e *env) {
		e.openFair(t, "fair", 60, 40, 500)
		group, ctx := errgroup.WithContext(t.Context())
		group.SetLimit(8)
		var sold, refused atomic.Int64
		for i := range 100 {
			group.Go(func() error {
				buyer := fmt.Sprint("buyer ", i)
				hold := holdOf("fair", buyer, 1, 0)
				hold.Lines = []stock.Line{line("c", 1+int64(i)%4), line("a", 1), line("b", 1)}
				slices.SortFunc(hold.Lines, func(a, b stock.Line) int { return (i%2*2 - 1) * int(a.SKU[0]-b.SKU[0]) })
				for _, l := range hold.Lines {
					hold.Quantity += l.Quantity
				}
				if _, err := e.place(ctx, hold, buyer); err != nil {
					return err
				}
				switch err := e.sellOne(ctx, hold.ID); {
				case err == nil:
					sold.Add(1)
				case errors.Is(err, stock.ErrLedger):
					refused.Add(1)
				default:
					return err
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if sold.Load() != 40 || refused.Load() != 60 {
			t.Errorf("%d baskets sold, %d refused; want 40 and 60", sold.Load(), refused.Load())
		}
		wantErr(t, "check", e.check(t.Context(), "fair"), nil)
	})
}

func TestBasket_APoolOfManyItemsKeepsTheirOrderAndStripes(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		p := stock.Pool{SKU: "fair"}
		for i := range stock.MaxItems {
			sku := fmt.Sprintf("チケット🎫 <\"%d\">", 99-i)
			p.Items = append(p.Items, stock.Item{SKU: sku, Total: int64(1 + i*10), Limit: int64(i % 3)})
		}
		e.openPool(t, p)
		terms, _, err := e.Pool(ctx, "fair")
		if err != nil || !slices.Equal(terms.Items, p.Items) || terms.Total != 64+10*63*64/2 {
			t.Fatalf("%+v, %v", terms, err)
		}
		wantErr(t, "check", e.check(ctx, "fair"), nil)
		for i, item := range p.Items {
			stripes, err := e.readStripes(ctx, e.db, e.q.readStripes, "fair", i)
			if want := max(1, min(defaultStripes, item.Total/unitsPerStripe)); err != nil || int64(len(stripes)) != want {
				t.Errorf("%d units in %d stripes, %v; want %d", item.Total, len(stripes), err, want)
			}
		}
		var lines []stock.Line
		for _, item := range p.Items {
			lines = append(lines, line(item.SKU, 1))
		}
		slices.Reverse(lines)
		id := e.placedBasket(t, "fair", lines...)
		wantErr(t, "sell", e.sellOne(ctx, id), nil)
		slices.Reverse(lines)
		if got := e.found(t, "fair", id); !slices.Equal(got.Lines, lines) {
			t.Errorf("found %v", got.Lines)
		}
		wantErr(t, "check", e.check(ctx, "fair"), nil)
	})
}

func TestBasket_AProcessThatHasNotOpenedThePoolReadsWhatItNeeds(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.openFair(t, "fair", 100, 100)
		id, other := e.placedBasket(t, "fair", line("b", 2)), e.placedBasket(t, "fair", line("a", 1))
		for name, step := range map[string]func(o *env) error{
			"place": func(o *env) error {
				_, err := o.place(t.Context(), e.basket("fair", "ada", line("b", 1)), "ada")
				return err
			},
			"sell":   func(o *env) error { return o.sellOne(t.Context(), id) },
			"find":   func(o *env) error { _, err := o.Find(t.Context(), "fair", []stock.ID{id}); return err },
			"status": func(o *env) error { _, err := o.Status(t.Context(), id); return err },
			"totals": func(o *env) error { _, err := o.Totals(t.Context(), "fair"); return err },
			"expire": func(o *env) error { _, err := o.Expire(t.Context(), "fair", []stock.ID{other}); return err },
		} {
			wantErr(t, name, step(onEnv(t, e.db, e.dialect, nil)), nil)
		}
		wantErr(t, "check", e.check(t.Context(), "fair"), nil)
	})
}
