package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/firstcome/firstcome/stock"
)

func TestRetire_WaitsForTheLastOrderAndIsForGood(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		pool := stock.Pool{SKU: "ticket", Total: 100}
		e.openPool(t, pool)
		ids := e.placed(t, "ticket", 3, 2)
		repeat := e.hold("ticket", "ada", 1)
		if _, err := e.place(ctx, repeat, "ada"); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "four held", e.Retire(ctx, "ticket"), stock.ErrInUse)
		for _, id := range []stock.ID{ids[0], ids[1], repeat.ID} {
			wantErr(t, "sell", e.sellOne(ctx, id), nil)
		}
		wantErr(t, "one held", e.Retire(ctx, "ticket"), stock.ErrInUse)
		if terms, _, err := e.Pool(ctx, "ticket"); err != nil || terms.Retired {
			t.Errorf("refused: %+v, %v", terms, err)
		}
		wantErr(t, "cancel", e.cancelOne(ctx, ids[2]), nil)
		for range 2 {
			wantErr(t, "retire", e.Retire(ctx, "ticket"), nil)
			if terms, _, err := e.Pool(ctx, "ticket"); err != nil || !terms.Retired || terms.Total != 100 {
				t.Errorf("retired: %+v, %v", terms, err)
			}
		}

		_, err := e.place(ctx, e.hold("ticket", "ada", 1), "ada")
		wantErr(t, "place", err, stock.ErrRetired)
		terms, _, existed, err := e.Open(ctx, pool)
		wantErr(t, "open", err, stock.ErrRetired)
		if !existed || !terms.Retired {
			t.Errorf("open: %+v, existed %v", terms, existed)
		}
		_, err = e.Adjust(ctx, e.change("ticket", 1, line("", 1)))
		wantErr(t, "adjust", err, stock.ErrRetired)
		_, _, err = e.RaiseEpoch(ctx, "ticket", 1)
		wantErr(t, "raise epoch", err, stock.ErrRetired)

		// What stands, stands.
		if existed, err := e.place(ctx, repeat, "ada"); err != nil || !existed {
			t.Errorf("place again: existed %v, %v", existed, err)
		}
		wantErr(t, "sell again", e.sellOne(ctx, ids[0]), nil)
		wantErr(t, "return", e.returnOne(ctx, ids[1]), nil)
		if record, err := e.Status(ctx, ids[1]); err != nil || record.State != stock.Returned {
			t.Errorf("status: %+v, %v", record, err)
		}
		verdicts, err := e.Expire(ctx, "ticket", []stock.ID{ids[0], ids[1], e.hold("ticket", "ada", 1).ID})
		if err != nil || verdicts[0] != stock.IsSold || verdicts[1] != stock.Free || verdicts[2] != stock.Free {
			t.Errorf("expire: %v, %v", verdicts, err)
		}
		e.audit(t, "ticket", 0, 3)
		wantErr(t, "unknown", e.Retire(ctx, "poster"), stock.ErrUnknownSKU)
	})
}

func TestPools_NamesThoseThatAreNotRetired(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		for _, sku := range []string{"b", "a", "C"} {
			e.openPool(t, stock.Pool{SKU: sku, Total: 1})
		}
		wantErr(t, "retire", e.Retire(ctx, "a"), nil)
		if names, err := e.Pools(ctx); err != nil || !slices.Equal(names, []string{"C", "b"}) {
			t.Errorf("got %q, %v", names, err)
		}
	})
}

func TestRetire_AnOpenOrderEitherKeepsThePoolInUseOrIsGone(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		if err := retireDuringOrder(t, e, true); err != nil {
			t.Error(err)
		}
		if err := retireDuringOrder(t, e, false); err != nil {
			t.Error(err)
		}
	})
}

// retireDuringOrder retires a pool while an order's transaction is open, and
// reports a retired pool in which an order is held.
func retireDuringOrder(t *testing.T, e *env, commit bool) error {
	ctx := t.Context()
	sku := fmt.Sprint("commit ", commit)
	e.open(t, sku, 100)
	tx := e.begin(t)
	if _, err := e.Place(ctx, tx, e.hold(sku, "ada", 1), "ada"); err != nil {
		return err
	}
	retired, err := e.meanwhile(ctx, func() error { return e.Retire(ctx, sku) })
	if err != nil {
		return err
	}
	want, wantLater := error(nil), stock.ErrRetired
	if commit {
		err, want, wantLater = tx.Commit(), stock.ErrInUse, nil
	} else {
		err = tx.Rollback()
	}
	if err != nil {
		return err
	}
	if err := <-retired; !errors.Is(err, want) {
		return fmt.Errorf("the order's commit was %v, and Retire gives %w", commit, errors.Join(err, errors.New("which is wrong")))
	}
	if _, err := e.place(ctx, e.hold(sku, "bob", 1), "bob"); !errors.Is(err, wantLater) {
		return fmt.Errorf("the order's commit was %v, and a later order gives %w", commit, errors.Join(err, errors.New("which is wrong")))
	}
	return nil
}

func TestRetire_AmongOrdersAndSalesLeavesNoneHeld(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.db.SetMaxOpenConns(12)
		e.open(t, "ticket", 1000)
		var retired atomic.Bool
		var sold atomic.Int64
		started := make(chan struct{})
		group, ctx := errgroup.WithContext(t.Context())
		for w := range 4 {
			group.Go(func() error {
				for i := range 30 {
					after := retired.Load()
					buyer := fmt.Sprint("buyer ", w)
					hold := holdOf("ticket", buyer, uint64(i)+1, 1)
					err := e.orderAndSale(ctx, hold, buyer, i%2 == 0)
					switch {
					case errors.Is(err, stock.ErrRetired):
						return nil
					case err != nil:
						return err
					case after:
						return errors.New("an order came after the pool's end")
					}
					if sold.Add(1) == 20 {
						close(started)
					}
				}
				return nil
			})
		}
		group.Go(func() error {
			select {
			case <-started:
			case <-ctx.Done():
				return ctx.Err()
			}
			for {
				err := e.Retire(ctx, "ticket")
				if errors.Is(err, stock.ErrInUse) {
					continue
				}
				retired.Store(err == nil)
				totals, err2 := e.Totals(ctx, "ticket")
				if totals.Held != 0 {
					err2 = errors.Join(err2, fmt.Errorf("%d are held in a retired pool", totals.Held))
				}
				return errors.Join(err, err2)
			}
		})
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d of 120 were sold before the end", sold.Load())
		e.audit(t, "ticket", 0, sold.Load())
	})
}

// orderAndSale is both in one transaction, or in two.
func (e *env) orderAndSale(ctx context.Context, hold stock.Hold, buyer string, one bool) error {
	if !one {
		if _, err := e.place(ctx, hold, buyer); err != nil {
			return err
		}
		return e.sellOne(ctx, hold.ID)
	}
	return e.in(ctx, func(tx *sql.Tx) error {
		if _, err := e.Place(ctx, tx, hold, buyer); err != nil {
			return err
		}
		return e.Sell(ctx, tx, hold.ID)
	})
}
