package sqlledger

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/firstcome/firstcome/stock"
)

func TestPlace_TheSameOrderAgainIsSuccessAndSaysSo(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		hold := e.hold("ticket", "ada", 2)
		for i, want := range []bool{false, true, true} {
			existed, err := e.place(t.Context(), hold, "ada")
			if err != nil || existed != want {
				t.Errorf("try %d: existed %v, %v; want %v", i, existed, err, want)
			}
		}
		wantErr(t, "sell", e.sellOne(t.Context(), hold.ID), nil)
		hold.State = stock.Sold
		if existed, err := e.place(t.Context(), hold, "ada"); err != nil || !existed {
			t.Errorf("after the sale: existed %v, %v; want true", existed, err)
		}
		e.audit(t, "ticket", 0, 2)
	})
}

func TestPlace_AnIDWithOtherContentIsAMismatchThatNamesTheField(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		e.open(t, "poster", 100)
		hold := e.hold("ticket", "ada", 2)
		if _, err := e.place(t.Context(), hold, "ada"); err != nil {
			t.Fatal(err)
		}
		quantity, sku := hold, hold
		quantity.Quantity, sku.SKU = 3, "poster"
		for _, c := range []struct {
			field string
			hold  stock.Hold
			buyer string
		}{{"quantity", quantity, "ada"}, {"sku", sku, "ada"}, {"buyer", hold, "bob"}, {"buyer", hold, "ada "}, {"buyer", hold, "Ada"}} {
			_, err := e.place(t.Context(), c.hold, c.buyer)
			var mismatch *stock.MismatchError
			if !errors.As(err, &mismatch) || mismatch.Field != c.field {
				t.Errorf("other %s: %v", c.field, err)
			}
		}
		e.audit(t, "ticket", 2, 0)
	})
}

func TestPlace_AnOrderThatEndedIsRefusedWithItsEnd(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		holds := make([]stock.Hold, 4)
		for i := range holds {
			holds[i] = e.hold("ticket", "ada", 1)
			if i == 3 {
				break // never placed
			}
			if _, err := e.place(ctx, holds[i], "ada"); err != nil {
				t.Fatal(err)
			}
		}
		wantErr(t, "cancel", e.cancelOne(ctx, holds[0].ID), nil)
		wantErr(t, "sell", e.sellOne(ctx, holds[1].ID), nil)
		wantErr(t, "return", e.returnOne(ctx, holds[1].ID), nil)
		if _, err := e.Expire(ctx, "ticket", []stock.ID{holds[2].ID, holds[3].ID}); err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{stock.ErrCancelled, stock.ErrTooLate, stock.ErrExpired, stock.ErrTooLate} {
			_, err := e.place(ctx, holds[i], "ada")
			wantErr(t, holds[i].ID.String(), err, want)
		}
	})
}

func TestPlace_AnotherEpochOrPoolIsRefusedAndTheTransactionMayGoOn(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		old, ahead, foreign := e.hold("ticket", "ada", 1), e.hold("ticket", "ada", 1), e.hold("poster", "ada", 1)
		before := e.hold("ticket", "ada", 1)
		if _, err := e.place(ctx, before, "ada"); err != nil {
			t.Fatal(err)
		}
		if _, raised, err := e.RaiseEpoch(ctx, "ticket", 1); err != nil || !raised {
			t.Fatalf("raised %v, %v", raised, err)
		}
		ahead.Epoch = 3
		fresh := e.hold("ticket", "ada", 1)
		fresh.Epoch = 2
		err := e.in(ctx, func(tx *sql.Tx) error {
			_, err := e.Place(ctx, tx, old, "ada")
			wantErr(t, "old epoch", err, stock.ErrFenced)
			_, err = e.Place(ctx, tx, ahead, "ada")
			wantErr(t, "epoch to come", err, stock.ErrFenced)
			_, err = e.Place(ctx, tx, foreign, "ada")
			wantErr(t, "unknown pool", err, stock.ErrUnknownSKU)
			existed, err := e.Place(ctx, tx, before, "ada")
			if err != nil || !existed {
				t.Errorf("placed in the old epoch: existed %v, %v; want true", existed, err)
			}
			_, err = e.Place(ctx, tx, fresh, "ada")
			return err
		})
		wantErr(t, "transaction", err, nil)
		e.audit(t, "ticket", 2, 0)
	})
}

func TestPlace_WhatReserveNeverAnswersIsInvalid(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		for name, edit := range map[string]func(*stock.Hold){
			"quantity 0":    func(h *stock.Hold) { h.Quantity = 0 },
			"quantity -1":   func(h *stock.Hold) { h.Quantity = -1 },
			"quantity 2^53": func(h *stock.Hold) { h.Quantity = stock.MaxQuantity + 1 },
			"no epoch":      func(h *stock.Hold) { h.Epoch = 0 },
			"no end":        func(h *stock.Hold) { h.Expires = time.Time{} },
			"no state":      func(h *stock.Hold) { h.State = 0 },
			"no SKU":        func(h *stock.Hold) { h.SKU = "" },
		} {
			hold := e.hold("ticket", "ada", 1)
			edit(&hold)
			_, err := e.place(t.Context(), hold, "ada")
			wantErr(t, name, err, stock.ErrInvalid)
		}
		for ended, want := range map[stock.State]error{
			stock.Cancelled: stock.ErrCancelled, stock.Expired: stock.ErrExpired, stock.Returned: stock.ErrTooLate,
		} {
			hold := e.hold("ticket", "ada", 1)
			hold.State = ended
			_, err := e.place(t.Context(), hold, "ada")
			wantErr(t, ended.String(), err, want)
		}
		e.audit(t, "ticket", 0, 0)
	})
}

func TestPlace_NamesThatDifferInCaseOrSpacesAreOtherPools(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		names := []string{"ticket", "Ticket", "ticket ", "tïcket", "チケット🎫"}
		for i, name := range names {
			e.open(t, name, int64(10+i))
		}
		for i, name := range names {
			e.placed(t, name, i+1, 1)
			pool, _, err := e.Pool(t.Context(), name)
			if err != nil || pool.Total != int64(10+i) {
				t.Errorf("%q: total %d, %v", name, pool.Total, err)
			}
		}
		for i, name := range names {
			e.audit(t, name, int64(i+1), 0)
		}
	})
}

func TestPlace_TwoTransactionsOfOneIDAreOneOrder(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		for _, commit := range []bool{true, false} {
			sku := map[bool]string{true: "committed", false: "rolled back"}[commit]
			e.open(t, sku, 100)
			hold := e.hold(sku, "ada", 1)
			first := e.begin(t)
			if existed, err := e.Place(t.Context(), first, hold, "ada"); err != nil || existed {
				t.Fatalf("existed %v, %v", existed, err)
			}
			type answer struct {
				existed bool
				err     error
			}
			second := make(chan answer)
			go func() {
				existed, err := e.place(t.Context(), hold, "ada")
				second <- answer{existed, err}
			}()
			e.awaitBlocked(t, 1)
			if commit {
				wantErr(t, "commit", first.Commit(), nil)
			} else {
				wantErr(t, "roll back", first.Rollback(), nil)
			}
			if got := <-second; got.err != nil || got.existed != commit {
				t.Errorf("the first %s: existed %v, %v", sku, got.existed, got.err)
			}
			e.audit(t, sku, 1, 0)
		}
	})
}

func TestReservation_TheDatabaseItselfRefusesWhatCannotBe(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		e.placed(t, "ticket", 1, 3)
		for _, wrong := range []string{
			"UPDATE firstcome_stock_reservation SET state = 'lost'",
			"UPDATE firstcome_stock_reservation SET quantity = -1",
			"UPDATE firstcome_stock_reservation SET released_units = -1",
			"UPDATE firstcome_stock_reservation SET released_units = 4",
			"UPDATE firstcome_stock_sold SET sold = total + 1",
			"UPDATE firstcome_stock_sold SET sold = -1",
			"UPDATE firstcome_stock_sold SET total = -1",
		} {
			if _, err := e.db.ExecContext(t.Context(), wrong); err == nil {
				t.Errorf("%s: no error", wrong)
			}
		}
		e.audit(t, "ticket", 3, 0)
	})
}
