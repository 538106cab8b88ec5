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
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/firstcome/firstcome/stock"
)

func TestSell_TwiceIsSuccessAndCountsOnce(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		id := e.placed(t, "ticket", 1, 3)[0]
		for range 3 {
			wantErr(t, "sell", e.sellOne(t.Context(), id), nil)
		}
		e.audit(t, "ticket", 0, 3)
	})
}

func TestSell_EachEndOfAnOrderHasItsOwnAnswer(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		ids := e.placed(t, "ticket", 4, 1)
		unplaced, voided := e.hold("ticket", "ada", 1).ID, e.hold("ticket", "ada", 1).ID
		wantErr(t, "cancel", e.cancelOne(ctx, ids[0]), nil)
		wantErr(t, "sell", e.sellOne(ctx, ids[1]), nil)
		wantErr(t, "return", e.returnOne(ctx, ids[1]), nil)
		if _, err := e.Expire(ctx, "ticket", []stock.ID{ids[2], voided}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name                       string
			id                         stock.ID
			sell, cancel, giveBackWant error
		}{
			{"cancelled", ids[0], stock.ErrCancelled, nil, stock.ErrCancelled},
			{"returned", ids[1], stock.ErrTooLate, stock.ErrTooLate, nil},
			{"expired", ids[2], stock.ErrExpired, stock.ErrExpired, stock.ErrExpired},
			{"held", ids[3], nil, nil, stock.ErrNotConfirmed},
			{"void", voided, stock.ErrExpired, stock.ErrExpired, stock.ErrExpired},
			{"missing", unplaced, stock.ErrNotFound, stock.ErrNotFound, stock.ErrNotFound},
		} {
			// All in one transaction that goes on: a refusal changes nothing.
			err := e.in(ctx, func(tx *sql.Tx) error {
				wantErr(t, "return "+c.name, e.Return(ctx, tx, c.id), c.giveBackWant)
				if c.name != "held" {
					wantErr(t, "sell "+c.name, e.Sell(ctx, tx, c.id), c.sell)
				}
				wantErr(t, "cancel "+c.name, e.Cancel(ctx, tx, c.id), c.cancel)
				return nil
			})
			wantErr(t, c.name, err, nil)
		}
		e.audit(t, "ticket", 0, 0)
	})
}

func TestCancel_ASoldOrderIsReturnedInstead(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		id := e.placed(t, "ticket", 1, 5)[0]
		wantErr(t, "sell", e.sellOne(ctx, id), nil)
		wantErr(t, "cancel", e.cancelOne(ctx, id), stock.ErrConfirmed)
		e.audit(t, "ticket", 0, 5)
		for range 2 {
			wantErr(t, "return", e.returnOne(ctx, id), nil)
		}
		e.audit(t, "ticket", 0, 0)
	})
}

func TestSell_MoreHeldThanThereIsSellsExactlyTheTotal(t *testing.T) {
	// As after a Redis that lost its memory and promised everything twice.
	each(t, &Options{Stripes: 4}, func(t *testing.T, e *env) {
		if err := oversell(t.Context(), e, "ticket", 100, 150); err != nil {
			t.Error(err)
		}
	})
}

// oversell places more orders than there are units, sells them all at once, and
// reports an invariant that did not hold.
func oversell(ctx context.Context, e *env, sku string, total, orders int64) error {
	if _, _, _, err := e.Open(ctx, stock.Pool{SKU: sku, Total: total}); err != nil {
		return err
	}
	var sold, refused atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range orders {
		group.Go(func() error {
			buyer := fmt.Sprint("buyer ", i)
			hold := holdOf(sku, buyer, uint64(i)+1<<32, 1)
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
		return err
	}
	if sold.Load() != total || refused.Load() != orders-total {
		return fmt.Errorf("sold %d, refused %d of %d orders on %d units", sold.Load(), refused.Load(), orders, total)
	}
	return e.check(context.WithoutCancel(ctx), sku)
}

func TestSell_ARefusalLeavesTheTransactionAsItWas(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 40) // two stripes of 20
		ids := e.placed(t, "ticket", 3, 15)
		wantErr(t, "sell", e.sellOne(ctx, ids[0]), nil)
		wantErr(t, "sell", e.sellOne(ctx, ids[1]), nil)
		err := e.in(ctx, func(tx *sql.Tx) error {
			wantErr(t, "third", e.Sell(ctx, tx, ids[2]), stock.ErrLedger)
			return nil // and commit
		})
		wantErr(t, "commit", err, nil)
		if s := e.state(t, ids[2]); s != held {
			t.Errorf("the refused order is %q, want held", s)
		}
		e.audit(t, "ticket", 15, 30)
		wantErr(t, "return", e.returnOne(ctx, ids[0]), nil)
		wantErr(t, "third", e.sellOne(ctx, ids[2]), nil)
		e.audit(t, "ticket", 0, 30)
	})
}

func TestSell_AQuantityBeyondEveryStripeIsSplit(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 160) // ten stripes of 16
		ids := e.placed(t, "ticket", 4, 40)
		for _, id := range ids {
			wantErr(t, "sell", e.sellOne(t.Context(), id), nil)
		}
		e.audit(t, "ticket", 0, 160)
		for _, id := range ids {
			wantErr(t, "return", e.returnOne(t.Context(), id), nil)
		}
		e.audit(t, "ticket", 0, 0)
	})
}

func TestSell_TheLastUnitsAreFoundInWhicheverStripeTheyAre(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 64) // four stripes
		for _, id := range e.placed(t, "ticket", 64, 1) {
			wantErr(t, "sell", e.sellOne(t.Context(), id), nil)
		}
		e.audit(t, "ticket", 0, 64)
	})
}

func TestSell_AStormOfOrdersSalesReturnsAndCancellationsKeepsTheCount(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 300)
		var held, sold atomic.Int64
		group, ctx := errgroup.WithContext(t.Context())
		for w := range 8 {
			group.Go(func() error {
				for i := range 40 {
					buyer := fmt.Sprint("buyer ", w)
					hold := holdOf("ticket", buyer, uint64(i)+1, int64(1+i%3))
					if _, err := e.place(ctx, hold, buyer); err != nil {
						return err
					}
					err := e.sellOne(ctx, hold.ID)
					switch {
					case errors.Is(err, stock.ErrLedger):
						held.Add(hold.Quantity)
						continue
					case err != nil:
						return err
					case i%4 == 0:
						if err := e.returnOne(ctx, hold.ID); err != nil {
							return err
						}
						continue
					}
					sold.Add(hold.Quantity)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		e.audit(t, "ticket", held.Load(), sold.Load())
	})
}

func TestSell_EveryLevelOfIsolationKeepsTheCount(t *testing.T) {
	eachServer(t, &Options{Stripes: 4}, func(t *testing.T, e *env) {
		for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
			sku := level.String()
			e.open(t, sku, 100)
			var sold atomic.Int64
			group, ctx := errgroup.WithContext(t.Context())
			for w := range 6 {
				group.Go(func() error {
					for i := range 20 {
						hold := holdOf(sku, fmt.Sprint(w), uint64(i)+1, 1)
						err := untilDone(ctx, e.db, level, func(tx *sql.Tx) error {
							_, err := e.Place(ctx, tx, hold, fmt.Sprint(w))
							return err
						})
						if err != nil {
							return err
						}
						err = untilDone(ctx, e.db, level, func(tx *sql.Tx) error { return e.Sell(ctx, tx, hold.ID) })
						if err == nil {
							sold.Add(1)
						} else if !errors.Is(err, stock.ErrLedger) {
							return err
						}
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatalf("%v: %v", level, err)
			}
			if sold.Load() != 100 {
				t.Errorf("%v: %d sold, want 100", level, sold.Load())
			}
			e.audit(t, sku, 20, 100)
		}
	})
}

// untilDone is a transaction at another level, tried until no conflict ends it.
func untilDone(ctx context.Context, db *sql.DB, level sql.IsolationLevel, work func(tx *sql.Tx) error) error {
	for {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
		if err != nil {
			return err
		}
		if err = work(tx); err == nil {
			err = tx.Commit()
		}
		_ = tx.Rollback()
		if !IsRetryable(err) {
			return err
		}
	}
}

func TestSellAll_BasketsInEveryOrderDoNotDeadlock(t *testing.T) {
	// Case 32. No retries here: the first deadlock fails the test.
	each(t, nil, func(t *testing.T, e *env) {
		skus := []string{"a", "b", "c"}
		for _, sku := range skus {
			e.open(t, sku, 400)
		}
		var baskets [][]stock.ID
		for i := range 24 {
			var basket []stock.ID
			for _, sku := range skus {
				basket = append(basket, e.placed(t, sku, 2, 1)...)
			}
			if i%2 == 0 {
				slices.Reverse(basket)
			}
			baskets = append(baskets, basket)
		}
		group, ctx := errgroup.WithContext(t.Context())
		group.SetLimit(8)
		for _, basket := range baskets {
			group.Go(func() error {
				tx, err := e.db.BeginTx(ctx, nil)
				if err != nil {
					return err
				}
				defer func() { _ = tx.Rollback() }()
				if err := e.SellAll(ctx, tx, basket...); err != nil {
					return err
				}
				return tx.Commit()
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		for _, sku := range skus {
			e.audit(t, sku, 0, 48)
		}
	})
}

func TestSellAll_IsAllOrNothingAndOncePerID(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "a", 100)
		e.open(t, "b", 16)
		a, b := e.placed(t, "a", 2, 5), e.placed(t, "b", 2, 10)
		gone := e.placed(t, "a", 1, 1)[0]
		wantErr(t, "cancel", e.cancelOne(ctx, gone), nil)
		sellAll := func(ids ...stock.ID) error {
			return e.in(ctx, func(tx *sql.Tx) error {
				if err := e.SellAll(ctx, tx, ids...); err != nil {
					// Committed all the same: a refusal has changed nothing.
					return errors.Join(tx.Commit(), err)
				}
				return nil
			})
		}
		wantErr(t, "too many of b", sellAll(a[0], b[0], b[1], a[1]), stock.ErrLedger)
		e.audit(t, "a", 10, 0)
		e.audit(t, "b", 20, 0)
		wantErr(t, "one cancelled", sellAll(a[0], b[0], gone), stock.ErrCancelled)
		wantErr(t, "one missing", sellAll(a[0], e.hold("a", "ada", 1).ID), stock.ErrNotFound)
		wantErr(t, "none", sellAll(), nil)
		e.audit(t, "a", 10, 0)
		for range 2 {
			wantErr(t, "those that fit", sellAll(a[0], b[0], a[1], a[0]), nil)
		}
		e.audit(t, "a", 0, 10)
		e.audit(t, "b", 10, 10)
	})
}

func TestSell_ConcurrentRepeatsOfOneIDCountOnce(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		id := e.placed(t, "ticket", 1, 7)[0]
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { wantErr(t, "sell", e.sellOne(t.Context(), id), nil) })
		}
		wg.Wait()
		e.audit(t, "ticket", 0, 7)
		for range 8 {
			wg.Go(func() { wantErr(t, "return", e.returnOne(t.Context(), id), nil) })
		}
		wg.Wait()
		e.audit(t, "ticket", 0, 0)
	})
}

func TestSell_AnOpenChangeOfTheRowIsWaitedForAndDecides(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		for name, c := range map[string]struct {
			change func(tx *sql.Tx, id stock.ID) error
			want   error
			sold   int64
		}{
			"extended":  {func(tx *sql.Tx, id stock.ID) error { return e.Extend(ctx, tx, id, time.UnixMilli(1_900_000_001_000)) }, nil, 3},
			"cancelled": {func(tx *sql.Tx, id stock.ID) error { return e.Cancel(ctx, tx, id) }, stock.ErrCancelled, 0},
			"sold":      {func(tx *sql.Tx, id stock.ID) error { return e.Sell(ctx, tx, id) }, nil, 3},
		} {
			id := e.placed(t, "ticket", 1, 3)[0]
			tx := e.begin(t)
			wantErr(t, name, c.change(tx, id), nil)
			sale := make(chan error, 1)
			go func() { sale <- e.sellOne(ctx, id) }()
			e.awaitBlocked(t, 1)
			wantErr(t, name, tx.Commit(), nil)
			wantErr(t, "sell what was "+name, <-sale, c.want)
			e.audit(t, "ticket", 0, c.sold)
			if c.sold > 0 {
				wantErr(t, "return", e.returnOne(ctx, id), nil)
			}
		}
	})
}
