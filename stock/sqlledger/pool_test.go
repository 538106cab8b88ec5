package sqlledger

import (
	"context"
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

func TestNew_SettingsOutOfRangeAreNamed(t *testing.T) {
	t.Parallel()
	db := openDB(t, "sqlite")
	for name, opts := range map[string]*Options{
		"Stripes": {Stripes: -1}, "Stripes is 1025": {Stripes: 1025},
		"ExpireWait": {ExpireWait: -1}, "ExpireWait is 1h": {ExpireWait: time.Hour},
	} {
		if _, err := New(db, "sqlite", opts); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(nil, "sqlite", nil); err == nil {
		t.Error("no database: no error")
	}
	if _, err := New(db, "oracle", nil); err == nil {
		t.Error("unknown dialect: no error")
	}
	if _, err := Migrations("oracle"); err == nil {
		t.Error("migrations of an unknown dialect: no error")
	}
}

func TestOpen_RecordsThePoolOnceAndTellsOtherTermsApart(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		opens := time.UnixMilli(1_800_000_000_123)
		pool := stock.Pool{SKU: "ticket", Total: 1000, Limit: 4, Hold: time.Minute, Opens: opens, Closes: opens.Add(time.Hour)}
		_, mark, existed, err := e.Open(ctx, pool)
		if err != nil || existed || mark != (stock.Mark{Epoch: 1}) {
			t.Fatalf("first: %v, existed %v, %v", mark, existed, err)
		}
		if _, _, existed, err := e.Open(ctx, pool); err != nil || !existed {
			t.Errorf("again: existed %v, %v", existed, err)
		}
		for name, edit := range map[string]func(*stock.Pool){
			"total": func(p *stock.Pool) { p.Total++ }, "limit": func(p *stock.Pool) { p.Limit = 0 },
			"hold": func(p *stock.Pool) { p.Hold = 0 }, "opens": func(p *stock.Pool) { p.Opens = time.Time{} },
			"closes": func(p *stock.Pool) { p.Closes = p.Closes.Add(time.Millisecond) },
			"late":   func(p *stock.Pool) { p.Late = stock.LateIfFree },
			"unpaid": func(p *stock.Pool) { p.Unpaid = stock.KeepUnits },
			"items":  func(p *stock.Pool) { p.Items = []stock.Item{{SKU: "ticket", Total: 1000}} },
		} {
			other := pool
			edit(&other)
			_, _, existed, err := e.Open(ctx, other)
			if !existed {
				t.Errorf("other %s: existed is false", name)
			}
			wantErr(t, "other "+name, err, stock.ErrPoolExists)
		}
		got, mark, err := e.Pool(ctx, "ticket")
		if err != nil || mark != (stock.Mark{Epoch: 1}) || got.Total != 1000 || got.Limit != 4 || got.Hold != time.Minute ||
			!got.Opens.Equal(opens) || !got.Closes.Equal(pool.Closes) {
			t.Errorf("read back: %+v, %v, %v", got, mark, err)
		}
	})
}

func TestOpen_ManyAtOnceMakeOnePool(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		var fresh atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, _, existed, err := e.Open(t.Context(), stock.Pool{SKU: "ticket", Total: 100})
				wantErr(t, "open", err, nil)
				if !existed {
					fresh.Add(1)
				}
			})
		}
		wg.Wait()
		if fresh.Load() != 1 {
			t.Errorf("%d callers made the pool, want 1", fresh.Load())
		}
	})
}

func TestOpen_TheStripesSumUpToTheTotal(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		for _, total := range []int64{1, 15, 16, 31, 32, 33, 255, 256, 1000, stock.MaxQuantity} {
			sku := fmt.Sprint("of ", total)
			e.open(t, sku, total)
			stripes, err := e.readStripes(t.Context(), e.db, e.q.readStripes, sku, 0)
			if err != nil {
				t.Fatal(err)
			}
			var sum int64
			for _, s := range stripes {
				sum += s.total
			}
			if sum != total || len(stripes) > defaultStripes || len(stripes) > 1 && total/int64(len(stripes)) < unitsPerStripe {
				t.Errorf("%d units: %d stripes with %d", total, len(stripes), sum)
			}
		}
	})
}

func TestPool_AnUnknownOneIsSaidToBe(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		_, _, err := e.Pool(ctx, "ticket")
		wantErr(t, "pool", err, stock.ErrUnknownSKU)
		_, err = e.Totals(ctx, "ticket")
		wantErr(t, "totals", err, stock.ErrUnknownSKU)
		_, _, err = e.RaiseEpoch(ctx, "ticket", 1)
		wantErr(t, "raise epoch", err, stock.ErrUnknownSKU)
		wantErr(t, "save mark", e.SaveMark(ctx, "ticket", stock.Mark{Epoch: 1, Seq: 1}), nil)
	})
}

func TestSaveMark_OnlyRisesAndOnlyInItsEpoch(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		for _, c := range []struct{ save, want stock.Mark }{
			{stock.Mark{Epoch: 1, Seq: 7}, stock.Mark{Epoch: 1, Seq: 7}},
			{stock.Mark{Epoch: 1, Seq: 5}, stock.Mark{Epoch: 1, Seq: 7}},
			{stock.Mark{Epoch: 2, Seq: 9}, stock.Mark{Epoch: 1, Seq: 7}},
			{stock.Mark{Epoch: 1, Seq: 8}, stock.Mark{Epoch: 1, Seq: 8}},
		} {
			wantErr(t, "save", e.SaveMark(ctx, "ticket", c.save), nil)
			if _, mark, err := e.Pool(ctx, "ticket"); err != nil || mark != c.want {
				t.Errorf("after %v: %v, %v; want %v", c.save, mark, err, c.want)
			}
		}
		if _, _, err := e.RaiseEpoch(ctx, "ticket", 1); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "save", e.SaveMark(ctx, "ticket", stock.Mark{Epoch: 1, Seq: 99}), nil)
		if _, mark, err := e.Pool(ctx, "ticket"); err != nil || mark != (stock.Mark{Epoch: 2}) {
			t.Errorf("in the new epoch: %v, %v", mark, err)
		}
	})
}

func TestRaiseEpoch_OneOfManyCallersSucceeds(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		for epoch := int64(1); epoch < 4; epoch++ {
			var won atomic.Int64
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					mark, raised, err := e.RaiseEpoch(t.Context(), "ticket", epoch)
					if err != nil || mark != (stock.Mark{Epoch: epoch + 1}) {
						t.Errorf("epoch %d: %v, %v", epoch, mark, err)
					}
					if raised {
						won.Add(1)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("epoch %d: %d callers raised it, want 1", epoch, won.Load())
			}
		}
	})
}

func TestRaiseEpoch_WaitsForOpenOrdersAndRefusesLaterOnes(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		if err := raiseDuringOrder(t, e); err != nil {
			t.Error(err)
		}
	})
}

// raiseDuringOrder raises the epoch while an order's transaction is open, and
// reports an order of the old epoch that the raiser can't have seen.
func raiseDuringOrder(t *testing.T, e *env) error {
	ctx := t.Context()
	e.open(t, "ticket", 100)
	hold, late := e.hold("ticket", "ada", 1), e.hold("ticket", "bob", 1)
	tx := e.begin(t)
	if _, err := e.Place(ctx, tx, hold, "ada"); err != nil {
		return err
	}
	type answer struct {
		seen []stock.Entry
		err  error
	}
	raised := make(chan answer, 1)
	go func() {
		_, ok, err := e.RaiseEpoch(ctx, "ticket", 1)
		if err == nil && !ok {
			err = errors.New("not raised")
		}
		seen, err2 := e.Entries(ctx, "ticket", stock.ID{}, 10)
		raised <- answer{seen, errors.Join(err, err2)}
	}()
	got, over := answer{}, false
	for blocked := 0; blocked == 0 && !over; { // until it waits, or (a mutant) does not
		select {
		case got = <-raised:
			over = true
		default:
			var err error
			if blocked, err = e.blocked(ctx); err != nil {
				return err
			}
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if !over {
		got = <-raised
	}
	if got.err != nil {
		return got.err
	}
	if len(got.seen) != 1 || got.seen[0].ID != hold.ID {
		return fmt.Errorf("an order of the old epoch committed behind the rebuild, which saw %d", len(got.seen))
	}
	if _, err := e.place(ctx, late, "bob"); !errors.Is(err, stock.ErrFenced) {
		return fmt.Errorf("an order of the old epoch came after the rebuild: %w", errors.Join(err, errors.New("not fenced")))
	}
	return nil
}

func TestRaiseEpoch_IsNotStarvedByOrdersWithoutPause(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		e.db.SetMaxOpenConns(20)
		e.open(t, "ticket", 1_000_000)
		var placed atomic.Int64
		started := make(chan struct{})
		group, ctx := errgroup.WithContext(t.Context())
		for w := range 16 {
			group.Go(func() error {
				for i := uint64(1); ; i++ {
					buyer := fmt.Sprint(w)
					_, err := e.place(ctx, holdOf("ticket", buyer, i, 1), buyer)
					if errors.Is(err, stock.ErrFenced) {
						return nil
					}
					if err != nil {
						return err
					}
					if placed.Add(1) == 200 {
						close(started)
					}
				}
			})
		}
		group.Go(func() error {
			select {
			case <-started:
			case <-ctx.Done():
				return ctx.Err()
			}
			begun := time.Now()
			before := placed.Load()
			_, raised, err := e.RaiseEpoch(ctx, "ticket", 1)
			t.Logf("raised in %v, during which %d orders came in", time.Since(begun), placed.Load()-before)
			if err == nil && !raised {
				err = errors.New("not raised")
			}
			return err
		})
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		e.audit(t, "ticket", placed.Load(), 0)
	})
}

func TestRaiseEpoch_GivesUpWithItsContext(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		tx := e.begin(t)
		if _, err := e.Place(t.Context(), tx, e.hold("ticket", "ada", 1), "ada"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, raised, err := e.RaiseEpoch(ctx, "ticket", 1); err == nil || raised {
			t.Errorf("raised %v, %v", raised, err)
		}
		wantErr(t, "commit", tx.Commit(), nil)
		if _, raised, err := e.RaiseEpoch(t.Context(), "ticket", 1); err != nil || !raised {
			t.Errorf("afterwards: raised %v, %v", raised, err)
		}
	})
}

func TestRaiseEpoch_ATransactionOfSeveralOrdersIsNoDeadlock(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		tx := e.begin(t)
		_, err := e.Place(ctx, tx, e.hold("ticket", "ada", 1), "ada")
		wantErr(t, "the first order", err, nil)
		raise := make(chan error, 1)
		go func() {
			_, _, err := e.RaiseEpoch(ctx, "ticket", 1)
			raise <- err
		}()
		e.awaitBlocked(t, 1)
		_, err = e.Place(ctx, tx, e.hold("ticket", "bob", 1), "bob")
		if err != nil && !errors.Is(err, stock.ErrFenced) {
			t.Errorf("the second order: %v", err)
		}
		wantErr(t, "commit", tx.Commit(), nil)
		wantErr(t, "raise", <-raise, nil)
		_, err = e.place(ctx, e.hold("ticket", "eve", 1), "eve")
		wantErr(t, "an order of the old epoch", err, stock.ErrFenced)
	})
}

func TestEntries_ComeInPagesInTheOrderOfTheirIDsAndOfOnePool(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		e.open(t, "poster", 100)
		want := make(map[stock.ID]stock.State)
		for i, id := range e.placed(t, "ticket", 25, 1) {
			switch i % 5 {
			case 0:
				wantErr(t, "sell", e.sellOne(ctx, id), nil)
				want[id] = stock.Sold
			case 1:
				wantErr(t, "cancel", e.cancelOne(ctx, id), nil)
			default:
				want[id] = stock.Held
			}
		}
		e.placed(t, "poster", 10, 1)
		if _, err := e.Expire(ctx, "ticket", []stock.ID{e.hold("ticket", "ada", 1).ID}); err != nil {
			t.Fatal(err)
		}
		var after stock.ID
		for {
			page, err := e.Entries(ctx, "ticket", after, 7)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, entry := range page {
				if compareIDs(entry.ID, after) <= 0 {
					t.Errorf("%v comes after %v", entry.ID, after)
				}
				if want[entry.ID] != entry.State || entry.Quantity != 1 || entry.Buyer == "" || entry.Expires.UnixMilli() != 1_900_000_000_000 {
					t.Errorf("%+v, want state %v", entry, want[entry.ID])
				}
				delete(want, entry.ID)
				after = entry.ID
			}
		}
		if len(want) > 0 {
			t.Errorf("%d entries are missing", len(want))
		}
		_, err := e.Entries(ctx, "ticket", stock.ID{}, 0)
		wantErr(t, "pages of none", err, stock.ErrInvalid)
	})
}

func TestFind_AnswersInTheOrderOfTheQuestionAlsoForThoseItLacks(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		ids := e.placed(t, "ticket", 5, 2)
		missing, voided := e.hold("ticket", "ada", 1).ID, e.hold("ticket", "ada", 1).ID
		wantErr(t, "sell", e.sellOne(ctx, ids[1]), nil)
		wantErr(t, "cancel", e.cancelOne(ctx, ids[2]), nil)
		wantErr(t, "sell a part", e.sellOne(ctx, ids[3], line("", 1)), nil)
		wantErr(t, "return", e.returnOne(ctx, ids[3]), nil)
		if _, err := e.Expire(ctx, "ticket", []stock.ID{voided, ids[4]}); err != nil {
			t.Fatal(err)
		}
		asked := []stock.ID{ids[4], missing, ids[0], ids[2], voided, ids[1], missing, ids[3], ids[0]}
		want := []stock.State{
			stock.Expired, 0, stock.Held, stock.Cancelled, stock.Expired, stock.Sold, 0, stock.Returned, stock.Held,
		}
		for len(asked) < 2*maxBatch+77 { // more than fit in one statement
			asked, want = append(asked, e.hold("ticket", "ada", 1).ID), append(want, 0)
		}
		asked, want = append(asked, ids[1]), append(want, stock.Sold)
		got, err := e.Find(ctx, "ticket", asked)
		if err != nil || len(got) != len(asked) {
			t.Fatalf("%d entries, %v", len(got), err)
		}
		for i, entry := range got {
			if entry.ID != asked[i] || entry.State != want[i] {
				t.Errorf("%d: %+v, want state %v", i, entry, want[i])
			}
		}
		if r := got[7]; r.Quantity != 1 || !slices.Equal(r.Released, []stock.Line{line("ticket", 1)}) {
			t.Errorf("a part that was returned: %+v", r)
		}
		if h := got[2]; h.Quantity != 2 || h.Buyer == "" || h.Expires.UnixMilli() != 1_900_000_000_000 {
			t.Errorf("held: %+v", h)
		}
		if got, err := e.Find(ctx, "ticket", nil); err != nil || len(got) != 0 {
			t.Errorf("none: %v, %v", got, err)
		}
		_, err = e.Find(ctx, "ticket", []stock.ID{ids[0], e.hold("poster", "ada", 1).ID})
		wantField(t, "another pool's", err, "sku")
	})
}

func TestOrders_WithoutPauseDoNotStarveSales(t *testing.T) {
	// Case 31. With epoch and counter in one row it was 800 orders to a sale.
	eachServer(t, nil, func(t *testing.T, e *env) {
		e.db.SetMaxOpenConns(16)
		e.open(t, "ticket", 1_000_000)
		backlog := make(chan stock.ID, 400)
		for _, id := range e.placed(t, "ticket", cap(backlog), 1) {
			backlog <- id
		}
		close(backlog)
		var orders atomic.Int64
		group, ctx := errgroup.WithContext(t.Context())
		pause, stop := context.WithCancel(ctx)
		defer stop()
		for w := range 8 {
			group.Go(func() error {
				for i := uint64(1); pause.Err() == nil; i++ {
					buyer := fmt.Sprint(w)
					if _, err := e.place(ctx, holdOf("ticket", buyer, i, 1), buyer); err != nil {
						return err
					}
					orders.Add(1)
				}
				return nil
			})
		}
		var sales errgroup.Group
		for range 8 {
			sales.Go(func() error {
				for id := range backlog {
					if err := e.sellOne(ctx, id); err != nil {
						return err
					}
				}
				return nil
			})
		}
		wantErr(t, "sales", sales.Wait(), nil)
		stop()
		wantErr(t, "orders", group.Wait(), nil)
		t.Logf("%d orders beside 400 sales", orders.Load())
		if orders.Load() > 10*400 {
			t.Errorf("%d orders passed 400 sales", orders.Load())
		}
		e.audit(t, "ticket", orders.Load(), 400)
	})
}
