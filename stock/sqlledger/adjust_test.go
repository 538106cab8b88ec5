package sqlledger

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/firstcome/firstcome/stock"
)

// change is an adjustment of its own.
func (e *env) change(sku string, version int64, add ...stock.Line) stock.Adjustment {
	e.claims++
	a := stock.Adjustment{SKU: sku, Version: version, Add: add}
	binary.BigEndian.PutUint64(a.ID[:], e.claims)
	return a
}

func TestAdjust_ChangesTheTermsOncePerIDAndOpenKeepsToTheOldOnes(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		pool := stock.Pool{SKU: "ticket", Total: 100, Limit: 4, Hold: time.Minute, Unpaid: stock.KeepUnits}
		first, mark, existed, err := e.Open(ctx, pool)
		if err != nil || existed || first.Version != 1 || !first.Same(&pool) || mark.Epoch != 1 {
			t.Fatalf("open: %+v, %v, existed %v, %v", first, mark, existed, err)
		}
		opens, closes := time.UnixMilli(1_800_000_000_123), time.UnixMilli(1_900_000_000_456)
		a := e.change("ticket", 1, line("", 50), line("ticket", -10))
		a.Pause, a.Opens, a.Closes = true, &opens, &closes
		for range 2 {
			got, err := e.Adjust(ctx, a)
			if err != nil || got.Version != 2 || got.Total != 140 || !got.Paused || got.Adjusted != a.ID || got.Limit != 4 ||
				got.Unpaid != stock.KeepUnits || !got.Opens.Equal(opens) || !got.Closes.Equal(closes) {
				t.Errorf("adjust: %+v, %v", got, err)
			}
			read, _, err := e.Pool(ctx, "ticket")
			if err != nil || !read.Same(&got.Pool) || read.Version != 2 || read.Adjusted != a.ID || !read.Paused || read.Retired {
				t.Errorf("read back: %+v, %v", read, err)
			}
			wantErr(t, "check", e.check(ctx, "ticket"), nil)
		}
		again, _, existed, err := e.Open(ctx, pool)
		if err != nil || !existed || again.Total != 140 || again.Version != 2 || !again.Paused {
			t.Errorf("open again: %+v, existed %v, %v", again, existed, err)
		}
		for _, other := range []stock.Pool{{SKU: "ticket", Total: 140, Limit: 4, Hold: time.Minute, Unpaid: stock.KeepUnits}, again.Pool} {
			now, _, existed, err := e.Open(ctx, other)
			wantErr(t, "open with the new terms", err, stock.ErrPoolExists)
			if !existed || now.Total != 140 {
				t.Errorf("open with the new terms: %+v, existed %v", now, existed)
			}
		}
		b := e.change("ticket", 2, line("", 1))
		b.Resume, b.Opens = true, &time.Time{}
		got, err := e.Adjust(ctx, b)
		if err != nil || got.Version != 3 || got.Paused || !got.Opens.IsZero() || !got.Closes.Equal(closes) {
			t.Errorf("resume: %+v, %v", got, err)
		}
		var version *stock.VersionError
		if _, err := e.Adjust(ctx, a); !errors.As(err, &version) || version.Version != 3 {
			t.Errorf("an old one: %v", err)
		}
		wantErr(t, "check", e.check(ctx, "ticket"), nil)
	})
}

func TestAdjust_WhatCannotBeIsRefusedAndChangesNothing(t *testing.T) {
	// Case 25.
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 1000)
		e.openFair(t, "fair", 100, 100)
		for _, id := range e.placed(t, "ticket", 9, 100) {
			wantErr(t, "sell", e.sellOne(ctx, id), nil)
		}
		wantErr(t, "sell", e.sellOne(ctx, e.placedBasket(t, "fair", line("b", 30))), nil)
		for _, force := range []bool{false, true} {
			a, b := e.change("ticket", 1, line("", -200)), e.change("fair", 1, line("a", -10), line("b", -71))
			a.Force, b.Force = force, force
			for by, change := range map[int64]stock.Adjustment{100: a, 1: b} {
				var over *stock.OverError
				if _, err := e.Adjust(ctx, change); !errors.As(err, &over) || over.By != by {
					t.Errorf("force %v: %v, want over by %d", force, err, by)
				}
			}
		}
		_, err := e.Adjust(ctx, e.change("fair", 1, line("c", 1)))
		wantItem(t, "an item that is not there", err, "c", stock.ErrUnknownSKU)
		_, err = e.Adjust(ctx, e.change("poster", 1, line("", 1)))
		wantErr(t, "no pool", err, stock.ErrUnknownSKU)
		_, err = e.Adjust(ctx, e.change("ticket", 1))
		wantErr(t, "nothing", err, stock.ErrInvalid)
		_, err = e.Adjust(ctx, e.change("ticket", 1, line("", -1001)))
		wantErr(t, "below zero", err, stock.ErrInvalid)
		for _, sku := range []string{"ticket", "fair"} {
			if terms, _, err := e.Pool(ctx, sku); err != nil || terms.Version != 1 {
				t.Errorf("%s: %+v, %v", sku, terms, err)
			}
			wantErr(t, "check", e.check(ctx, sku), nil)
		}
		got, err := e.Adjust(ctx, e.change("ticket", 1, line("", -100)))
		if err != nil || got.Total != 900 {
			t.Errorf("all that are free: %+v, %v", got, err)
		}
		wantErr(t, "sell", e.sellOne(ctx, e.placed(t, "ticket", 1, 1)[0]), stock.ErrLedger)
		e.audit(t, "ticket", 1, 900)
	})
}

func TestAdjust_UnitsThatAreAddedCanBeSoldWhereverTheyAre(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.openFair(t, "fair", 40, 64)
		last := e.placedBasket(t, "fair", line("a", 30), line("b", 60))
		wantErr(t, "sell", e.sellOne(ctx, last), nil)
		wants := e.placedBasket(t, "fair", line("a", 11), line("b", 4))
		wantItem(t, "one too many", e.sellOne(ctx, wants), "a", stock.ErrLedger)
		got, err := e.Adjust(ctx, e.change("fair", 1, line("a", 2), line("b", -1), line("b", 3)))
		if err != nil || got.Total != 108 || got.Items[0].Total != 42 || got.Items[1].Total != 66 {
			t.Fatalf("%+v, %v", got, err)
		}
		wantErr(t, "then", e.sellOne(ctx, wants), nil)
		e.auditItems(t, "fair", [2]int64{0, 41}, [2]int64{0, 64})
		totals, err := e.Totals(ctx, "fair")
		if err != nil || totals.Total != 108 || totals.Items[0] != (stock.ItemTotals{SKU: "a", Total: 42, Sold: 41}) {
			t.Errorf("%+v, %v", totals, err)
		}
		wantErr(t, "return", e.returnOne(ctx, last), nil)
		e.auditItems(t, "fair", [2]int64{0, 11}, [2]int64{0, 4})
	})
}

func TestAdjust_OfManyOnOneVersionOneIsMadeAndTheOthersKnowIt(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		for version := int64(1); version <= 3; version++ {
			var won atomic.Int64
			var wg sync.WaitGroup
			for range 6 {
				a := e.change("ticket", version, line("", 16))
				wg.Go(func() {
					got, err := e.Adjust(t.Context(), a)
					var other *stock.VersionError
					switch {
					case err == nil && got.Version == version+1:
						won.Add(1)
					case !errors.As(err, &other) || other.Version != version+1:
						t.Errorf("version %d: %+v, %v", version, got, err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("version %d: %d adjustments were made, want 1", version, won.Load())
			}
		}
		if terms, _, err := e.Pool(t.Context(), "ticket"); err != nil || terms.Total != 148 {
			t.Errorf("%+v, %v", terms, err)
		}
		wantErr(t, "check", e.check(t.Context(), "ticket"), nil)
	})
}

func TestAdjust_TheSameOneAtOnceIsMadeOnce(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		a := e.change("ticket", 1, line("", 16))
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if got, err := e.Adjust(t.Context(), a); err != nil || got.Version != 2 || got.Total != 116 {
					t.Errorf("%+v, %v", got, err)
				}
			})
		}
		wg.Wait()
		wantErr(t, "check", e.check(t.Context(), "ticket"), nil)
	})
}

func TestAdjust_LoweringAndRaisingWhileSellingNeverSellsMoreThanTheTotal(t *testing.T) {
	each(t, &Options{Stripes: 4}, func(t *testing.T, e *env) {
		e.db.SetMaxOpenConns(12)
		e.open(t, "ticket", 200)
		var sold, back atomic.Int64
		group, ctx := errgroup.WithContext(t.Context())
		for w := range 6 {
			group.Go(func() error {
				for i := range 40 {
					buyer := fmt.Sprint("buyer ", w)
					hold := holdOf("ticket", buyer, uint64(i)+1, int64(1+i%2))
					if _, err := e.place(ctx, hold, buyer); err != nil {
						return err
					}
					switch err := e.sellOne(ctx, hold.ID); {
					case errors.Is(err, stock.ErrLedger):
					case err != nil:
						return err
					case i%8 == 0:
						if err := e.returnOne(ctx, hold.ID); err != nil {
							return err
						}
						back.Add(hold.Quantity)
					default:
						sold.Add(hold.Quantity)
					}
				}
				return nil
			})
		}
		group.Go(func() error { return e.adjustAllTheTime(ctx, 200, 30) })
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		terms, _, err := e.Pool(t.Context(), "ticket")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d sold of %d in version %d", sold.Load(), terms.Total, terms.Version)
		totals, err := e.Totals(t.Context(), "ticket")
		if err != nil || totals.Sold != sold.Load() || totals.Sold > terms.Total {
			t.Errorf("%+v, %v; %d were sold", totals, err, sold.Load())
		}
		wantErr(t, "check", e.check(t.Context(), "ticket"), nil)
	})
}

// adjustAllTheTime lowers and raises a pool in turn, as far as it may; where it
// is ahead of the buyers, it stops at nothing.
func (e *env) adjustAllTheTime(ctx context.Context, total int64, times int) error {
	version := int64(1)
	for i := range times {
		by := []int64{-37, 21, -9}[i%3]
		if total+by < 0 {
			continue
		}
		got, err := e.Adjust(ctx, e.change("ticket", version, line("", by)))
		switch {
		case errors.Is(err, stock.ErrOver):
		case err != nil:
			return err
		default:
			version, total = got.Version, got.Total
			totals, err := e.Totals(ctx, "ticket")
			if err != nil || totals.Sold > totals.Total {
				return fmt.Errorf("%d sold of %d: %w", totals.Sold, totals.Total, errors.Join(err, errors.New("oversold")))
			}
		}
	}
	return nil
}

func TestAdjust_DoesNotWaitForOrders(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		tx := e.begin(t)
		if _, err := e.Place(t.Context(), tx, e.hold("ticket", "ada", 1), "ada"); err != nil {
			t.Fatal(err)
		}
		// Were it to wait, it would be without end.
		got, err := e.Adjust(t.Context(), e.change("ticket", 1, line("", -90)))
		if err != nil || got.Total != 10 {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := e.Place(t.Context(), tx, e.hold("ticket", "ada", 1), "ada"); err != nil {
			t.Error(err)
		}
		wantErr(t, "commit", tx.Commit(), nil)
		e.audit(t, "ticket", 2, 0)
	})
}

func TestAdjust_WaitsForAnOpenSaleAndCountsIt(t *testing.T) {
	eachServer(t, &Options{Stripes: 2}, func(t *testing.T, e *env) {
		for _, commit := range []bool{true, false} {
			sku := fmt.Sprint("commit ", commit)
			if err := lowerDuringSale(t, e, sku, commit); err != nil {
				t.Error(err)
			}
		}
	})
}

// lowerDuringSale takes out units that an open transaction has sold, and reports
// a total that is less than what was sold.
func lowerDuringSale(t *testing.T, e *env, sku string, commit bool) error {
	ctx := t.Context()
	e.open(t, sku, 100)
	id := e.placed(t, sku, 1, 45)[0]
	tx := e.begin(t)
	if err := e.Sell(ctx, tx, id); err != nil {
		return err
	}
	a := e.change(sku, 1, line("", -60))
	adjusted, err := e.meanwhile(ctx, func() error {
		_, err := e.Adjust(ctx, a)
		return err
	})
	if err != nil {
		return err
	}
	if commit {
		err = tx.Commit()
	} else {
		err = tx.Rollback()
	}
	if err != nil {
		return err
	}
	err = <-adjusted
	if over := new(stock.OverError); commit && (!errors.As(err, &over) || over.By != 5) || !commit && err != nil {
		return fmt.Errorf("the sale's commit was %v, the adjustment gives %w", commit, errors.Join(err, errors.New("which is wrong")))
	}
	return e.check(ctx, sku)
}

// meanwhile starts a step and returns once it waits for a lock, or is over.
func (e *env) meanwhile(ctx context.Context, step func() error) (<-chan error, error) {
	over, result := make(chan struct{}), make(chan error, 1)
	go func() {
		result <- step()
		close(over)
	}()
	for {
		select {
		case <-over:
			return result, nil
		default:
			if blocked, err := e.blocked(ctx); err != nil || blocked > 0 {
				return result, err
			}
		}
	}
}

func TestAdjust_TwoThatOverlapAreOne(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		if err := adjustDuringAdjust(t, e); err != nil {
			t.Error(err)
		}
	})
}

// adjustDuringAdjust adjusts while another adjustment is open, and reports it if
// both are made.
func adjustDuringAdjust(t *testing.T, e *env) error {
	ctx := t.Context()
	e.open(t, "ticket", 100)
	first, second := e.change("ticket", 1, line("", 10)), e.change("ticket", 1, line("", 20))
	tx, err := e.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := e.adjust(ctx, tx, &first); err != nil {
		return err
	}
	adjusted, err := e.meanwhile(ctx, func() error {
		_, err := e.Adjust(ctx, second)
		return err
	})
	if err := errors.Join(err, tx.Commit()); err != nil {
		return err
	}
	if err := <-adjusted; !errors.Is(err, stock.ErrVersion) {
		return fmt.Errorf("the second gives %w", errors.Join(err, errors.New("no other version")))
	}
	return e.check(ctx, "ticket")
}
