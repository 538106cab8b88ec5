package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/firstcome/firstcome/stock"
)

func TestSellPart_TheRestIsGivenUpInTheSameStep(t *testing.T) {
	// Case 15.
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		id := e.placed(t, "ticket", 1, 3)[0]
		for _, part := range [][]stock.Line{{line("", 2)}, {line("ticket", 2)}, {line("ticket", 1), line("", 1)}} {
			wantErr(t, "sell", e.sellOne(ctx, id, part...), nil)
			e.audit(t, "ticket", 0, 2)
		}
		got := e.found(t, "ticket", id)
		if got.Quantity != 2 || got.Lines != nil || !slices.Equal(got.Released, []stock.Line{line("ticket", 1)}) || got.State != stock.Sold {
			t.Errorf("found %+v", got)
		}
		for range 2 {
			wantErr(t, "return", e.returnOne(ctx, id), nil)
			e.audit(t, "ticket", 0, 0)
		}
	})
}

func TestSellPart_OfABasketIsByItem(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.openFair(t, "fair", 100, 100, 100)
		id := e.placedBasket(t, "fair", line("a", 20), line("b", 1), line("c", 2))
		for range 2 {
			wantErr(t, "sell", e.sellOne(ctx, id, line("c", 2), line("a", 19)), nil)
			e.auditItems(t, "fair", [2]int64{0, 19}, [2]int64{0, 0}, [2]int64{0, 2})
		}
		got := e.found(t, "fair", id)
		if got.Quantity != 21 || !slices.Equal(got.Lines, []stock.Line{line("a", 19), line("c", 2)}) ||
			!slices.Equal(got.Released, []stock.Line{line("a", 1), line("b", 1)}) {
			t.Errorf("found %+v", got)
		}
		for range 2 {
			wantErr(t, "return", e.returnOne(ctx, id), nil)
			e.auditItems(t, "fair", [2]int64{0, 0}, [2]int64{0, 0}, [2]int64{0, 0})
		}
	})
}

func TestSellPart_AnotherPartOrMoreThanWasAskedIsAMismatch(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		e.openFair(t, "fair", 100, 100)
		ids := e.placed(t, "ticket", 2, 3)
		wantField(t, "more than asked", e.sellOne(ctx, ids[0], line("", 4)), "quantity")
		wantErr(t, "sell", e.sellOne(ctx, ids[0], line("", 2)), nil)
		wantField(t, "another part", e.sellOne(ctx, ids[0], line("", 1)), "quantity")
		wantField(t, "all after a part", e.sellOne(ctx, ids[0]), "quantity")
		wantField(t, "all after a part, spelled out", e.sellOne(ctx, ids[0], line("", 3)), "quantity")
		wantErr(t, "sell", e.sellOne(ctx, ids[1]), nil)
		wantErr(t, "all, spelled out", e.sellOne(ctx, ids[1], line("", 3)), nil)
		wantField(t, "a part after all", e.sellOne(ctx, ids[1], line("", 2)), "quantity")
		e.audit(t, "ticket", 0, 5)

		id := e.placedBasket(t, "fair", line("a", 2), line("b", 1))
		wantField(t, "more of an item", e.sellOne(ctx, id, line("a", 1), line("b", 2)), "lines")
		wantErr(t, "sell", e.sellOne(ctx, id, line("a", 1)), nil)
		wantField(t, "another item", e.sellOne(ctx, id, line("b", 1)), "lines")
		wantField(t, "all after a part", e.sellOne(ctx, id), "lines")
		e.auditItems(t, "fair", [2]int64{0, 1}, [2]int64{0, 0})
		err := e.in(ctx, func(tx *sql.Tx) error { return e.SellAll(ctx, tx, id, ids[1]) })
		wantField(t, "all of several", err, "lines")
		wantItem(t, "another SKU", e.sellOne(ctx, id, line("c", 1)), "c", stock.ErrUnknownSKU)
		wantErr(t, "none", e.sellOne(ctx, id, line("a", 0)), stock.ErrInvalid)
	})
}

func TestSellPart_EachEndOfAnOrderKeepsItsOwnAnswer(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		ids := e.placed(t, "ticket", 3, 2)
		wantErr(t, "cancel", e.cancelOne(ctx, ids[0]), nil)
		wantErr(t, "sell", e.sellOne(ctx, ids[1], line("", 1)), nil)
		wantErr(t, "cancel", e.cancelOne(ctx, ids[1]), stock.ErrConfirmed)
		wantErr(t, "return", e.returnOne(ctx, ids[1]), nil)
		if _, err := e.Expire(ctx, "ticket", ids[2:]); err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{stock.ErrCancelled, stock.ErrTooLate, stock.ErrExpired} {
			wantErr(t, "a part", e.sellOne(ctx, ids[i], line("", 1)), want)
		}
		wantErr(t, "missing", e.sellOne(ctx, e.hold("ticket", "ada", 1).ID, line("", 1)), stock.ErrNotFound)
		e.audit(t, "ticket", 0, 0)
	})
}

func TestSellPart_OfWhichTooFewAreLeftIsRefusedAndALesserPartSells(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 40)
		ids := e.placed(t, "ticket", 2, 38)
		wantErr(t, "sell", e.sellOne(ctx, ids[0]), nil)
		err := e.in(ctx, func(tx *sql.Tx) error { // and commit
			wantErr(t, "too many", e.Sell(ctx, tx, ids[1], line("", 3)), stock.ErrLedger)
			return nil
		})
		wantErr(t, "commit", err, nil)
		e.audit(t, "ticket", 38, 38)
		wantErr(t, "two", e.sellOne(ctx, ids[1], line("", 2)), nil)
		e.audit(t, "ticket", 0, 40)
	})
}

func TestSellPart_TwoOtherPartsAtOnceAreOneSale(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		for _, id := range e.placed(t, "ticket", 10, 3) {
			errs := make([]error, 3)
			var wg sync.WaitGroup
			for i := range errs {
				wg.Go(func() {
					part := []stock.Line{line("", int64(i))}
					if i == 0 {
						part = nil
					}
					errs[i] = e.sellOne(t.Context(), id, part...)
				})
			}
			wg.Wait()
			won := 0
			for i, err := range errs {
				if err == nil {
					won++
					if want := [3]int64{3, 1, 2}[i]; e.found(t, "ticket", id).Quantity != want {
						t.Errorf("%d were to be sold", want)
					}
					continue
				}
				wantField(t, fmt.Sprint("part ", i), err, "quantity")
			}
			if won != 1 {
				t.Errorf("%d sales of one order", won)
			}
		}
		wantErr(t, "check", e.check(t.Context(), "ticket"), nil)
	})
}

func TestPlace_AHoldOfWhichAPartWasReleasedIsSoldAsThatPartOnly(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		if err := sellReleased(t.Context(), e); err != nil {
			t.Error(err)
		}
		ctx := t.Context()
		e.audit(t, "ticket", 0, 2)
		e.auditItems(t, "fair", [2]int64{0, 1}, [2]int64{0, 2})

		// A repeat, before the store has released anything or after it.
		whole := e.hold("ticket", "ada", 3)
		if _, err := e.place(ctx, whole, "ada"); err != nil {
			t.Fatal(err)
		}
		less := whole
		less.Quantity, less.Released = 1, []stock.Line{line("ticket", 2)}
		if existed, err := e.place(ctx, less, "ada"); err != nil || !existed {
			t.Errorf("less of the same: existed %v, %v", existed, err)
		}
		less.Quantity = 2
		_, err := e.place(ctx, less, "ada")
		wantField(t, "more", err, "quantity")
		less.Quantity = stock.MaxQuantity
		_, err = e.place(ctx, less, "ada")
		wantErr(t, "too many", err, stock.ErrInvalid)
		less.Released = []stock.Line{line("ticket", 0)}
		_, err = e.place(ctx, less, "ada")
		wantErr(t, "released nothing", err, stock.ErrInvalid)
	})
}

// sellReleased places holds of which the store has released a part, and sells
// them; it reports a sale of more.
func sellReleased(ctx context.Context, e *env) error {
	_, _, _, err := e.Open(ctx, stock.Pool{SKU: "ticket", Total: 100})
	_, _, _, err2 := e.Open(ctx, stock.Pool{SKU: "fair", Items: []stock.Item{{SKU: "a", Total: 100}, {SKU: "b", Total: 100}}})
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	one := e.hold("ticket", "ada", 2)
	one.State, one.Released = stock.Sold, []stock.Line{line("ticket", 1)}
	basket := e.basket("fair", "ada", line("a", 1), line("b", 2))
	basket.Released = []stock.Line{line("a", 2)}
	for _, c := range []struct {
		hold stock.Hold
		part []stock.Line
	}{{one, []stock.Line{line("", 2)}}, {basket, basket.Lines}} {
		if _, err := e.place(ctx, c.hold, "ada"); err != nil {
			return err
		}
		if err := e.sellOne(ctx, c.hold.ID); !errors.Is(err, stock.ErrMismatch) {
			return fmt.Errorf("all of a released one: %w", errors.Join(err, errors.New("no mismatch")))
		}
		for range 2 {
			if err := e.sellOne(ctx, c.hold.ID, c.part...); err != nil {
				return err
			}
		}
	}
	return errors.Join(e.check(ctx, "ticket"), e.check(ctx, "fair"))
}
