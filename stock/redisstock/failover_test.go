package redisstock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// mustBeShut is mustBeFenced for the calls that are not about a reservation, too.
func (s *stand) mustBeShut(ids ...stock.ID) {
	s.t.Helper()
	before := s.contents()
	for _, id := range ids {
		s.mustBeFenced(id)
		if hold, err := s.store.Extend(s.t.Context(), id, time.Now().Add(2*time.Hour)); !errors.Is(err, stock.ErrFenced) {
			s.t.Errorf("extend: got %+v, %v; want fenced", hold, err)
		}
	}
	_, errAdjust := s.store.Adjust(s.t.Context(), s.adjustment(5))
	_, errAudit := s.store.Audit(s.t.Context(), s.pool.SKU)
	_, errReconcile := s.store.Reconcile(s.t.Context(), s.pool.SKU)
	for name, err := range map[string]error{
		"adjust": errAdjust, "audit": errAudit, "reconcile": errReconcile,
		"sweep":  redisstock.SweepOnce(s.t.Context(), s.store, s.pool.SKU),
		"retire": s.store.Retire(s.t.Context(), s.pool.SKU),
	} {
		if !errors.Is(err, stock.ErrFenced) {
			s.t.Errorf("%s: got %v, want fenced", name, err)
		}
	}
	if after := s.contents(); !maps.Equal(after, before) {
		s.t.Errorf("something was written: it was %q and is %q", before, after)
	}
}

func TestAPromotedReplicaThatLacksAcknowledgedHoldsSellsNothingToWhoSawThem(t *testing.T) {
	t.Parallel()
	c := testenv.NewRedisFailover(t)
	s := newStand(t, mustStore(t, c.Client, nil, nil), c.Client, func(p *stock.Pool) { p.Total = 4 })
	kept := s.hold("ann").ID
	if _, err := s.confirm(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	var lost []stock.ID
	c.FailOver(t, func() {
		for _, buyer := range []string{"bob", "cay", "dan"} {
			lost = append(lost, s.hold(buyer).ID)
		}
		if _, err := s.confirm(t.Context(), lost[0]); err != nil {
			t.Fatal(err)
		}
		s.levels(0, 2, 2)
	})
	s.mustBeShut(append(lost, kept)...)
	// Opening the pool, as each start of a process does, opens nothing.
	_, _ = s.store.Open(t.Context(), s.pool)
	s.mustBeShut(kept)
}

// resold sells two units twice, over a failover that forgets the first sale,
// and returns how many were sold.
func resold(t *testing.T, without bool) int {
	t.Helper()
	c := testenv.NewRedisFailover(t)
	store := mustStore(t, c.Client, nil, nil)
	if without {
		for _, script := range []string{"reserve", "change"} {
			if err := redisstock.Mutate(store, script, " or tonumber(seq) < tonumber(ARGV[2])", ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := newStand(t, store, c.Client, func(p *stock.Pool) { p.Total = 2 })
	sold := 0
	sell := func(buyer string) {
		hold, err := store.Reserve(t.Context(), s.ask(buyer))
		if err == nil {
			hold, err = store.Confirm(t.Context(), hold.ID)
		}
		if err == nil && hold.State == stock.Sold {
			sold++
		} else if !errors.Is(err, stock.ErrFenced) {
			t.Errorf("got %+v, %v", hold, err)
		}
	}
	c.FailOver(t, func() { sell("ann"); sell("bob") })
	sell("cay")
	sell("dan")
	return sold
}

func TestALossyFailoverWouldSellFourOfTwoUnitsWithoutTheFence(t *testing.T) {
	t.Parallel()
	for name, want := range map[bool]int{false: 2, true: 4} {
		t.Run(fmt.Sprintf("without the fence %v", name), func(t *testing.T) {
			t.Parallel()
			if sold := resold(t, name); sold != want {
				t.Errorf("%d of 2 were sold, want %d", sold, want)
			}
		})
	}
}

// pairShop is a shop on a pair.
func pairShop(t *testing.T, c *testenv.RedisFailover, total int64) *shop {
	t.Helper()
	return newShop(t, c.Client, newLedger(t, nil), nil, func(p *stock.Pool) { p.Total = total })
}

// newcomer is the same shop in a process that has just started.
func (s *shop) newcomer() *shop {
	s.t.Helper()
	fresh := *s.stand
	fresh.store = mustStore(s.t, s.client, s.books, nil)
	return &shop{&fresh, s.books}
}

func TestAPromotedReplicaIsRebuiltFromTheLedgerAndTheRestIsSoldOnce(t *testing.T) {
	t.Parallel()
	c := testenv.NewRedisFailover(t)
	s := pairShop(t, c, 7)
	ann, bob := s.sold("ann"), s.order("bob")
	var cay, dan, eve, fay stock.Hold
	c.FailOver(t, func() {
		if err := s.sell(bob.ID); err != nil { // the order outlives its store's memory
			t.Fatal(err)
		}
		cay, dan, eve, fay = s.sold("cay"), s.order("dan"), s.hold("eve"), s.order("fay")
		if err := s.sell(fay.ID); err != nil { // the store has not heard of it
			t.Fatal(err)
		}
	})
	s.mustBeShut(ann.ID, bob.ID, cay.ID, dan.ID, eve.ID)

	l, err := s.store.Rebuild(t.Context(), s.pool.SKU)
	if err != nil || l.Free != 2 || l.Held != 1 || l.Sold != 4 {
		t.Fatalf("rebuilt: %+v, %v", l, err)
	}
	s.agrees(2, 1, 4)
	s.mustBeClean()
	for who, shop := range map[string]*shop{"who saw the loss": s, "a new process": s.newcomer()} {
		for id, want := range map[stock.ID]stock.State{
			ann.ID: stock.Sold, bob.ID: stock.Sold, cay.ID: stock.Sold, dan.ID: stock.Held, eve.ID: 0, fay.ID: stock.Sold,
		} {
			if got := shop.state(id); got != want {
				t.Errorf("%s finds %v, want %v", who, got, want)
			}
		}
	}
	if err := s.place(eve, "eve"); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("an order of the lost epoch: %v", err)
	}

	s.sold("gus")
	s.sold("hal")
	if err := s.sell(dan.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.confirm(t.Context(), dan.ID); err != nil {
		t.Fatal(err)
	}
	if hold, err := s.store.Reserve(t.Context(), s.ask("eve")); !errors.Is(err, stock.ErrSoldOut) {
		t.Errorf("got %+v, %v", hold, err)
	}
	s.agrees(0, 0, 7)
	s.mustBeClean()
}

func TestAProcessThatHasJustStartedIsStoppedByTheLedgersMark(t *testing.T) {
	t.Parallel()
	c := testenv.NewRedisFailover(t)
	s := pairShop(t, c, 3)
	s.sold("ann")
	c.FailOver(t, func() {
		s.sold("bob")
		s.hold("cay")
		s.runUntilMarked() // from here on the ledger knows how far the pool had come
	})
	fresh := s.newcomer()
	fresh.mustBeShut(s.ask("dan").ID)
	if l, err := s.newcomer().store.Open(t.Context(), s.pool); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("open: got %+v, %v", l, err)
	}
	if _, err := fresh.store.Rebuild(t.Context(), s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	fresh.agrees(1, 0, 2)
	fresh.sold("dan")
	s.agrees(0, 0, 3) // who was there before is let in again as well
	s.mustBeClean()
}

func TestAProcessThatKnowsOfNoLossIsStoppedByTheLedgerWhenItSells(t *testing.T) {
	t.Parallel()
	c := testenv.NewRedisFailover(t)
	s := pairShop(t, c, 3)
	s.sold("ann")
	c.FailOver(t, func() {
		s.sold("bob")
		s.sold("cay") // Run has told the ledger's mark nothing
	})
	fresh := s.newcomer()
	resold := []stock.Hold{fresh.order("dan"), fresh.order("eve")}
	for _, hold := range resold {
		if err := fresh.sell(hold.ID); !errors.Is(err, stock.ErrLedger) {
			t.Errorf("got %v, want that the ledger has no unit left", err)
		}
	}
	if totals, err := s.books.Totals(t.Context(), s.pool.SKU); err != nil || totals.Sold != 3 {
		t.Errorf("the ledger counts %+v, %v; want 3 sold", totals, err)
	}
	// Nothing fences a loss that nobody knows of. The books are put right by
	// the ledger; an order that is still unpaid has no unit any more.
	if err := fresh.cancel(resold[0].ID); err != nil {
		t.Fatal(err)
	}
	if audit, err := fresh.store.Reconcile(t.Context(), s.pool.SKU); err != nil || !audit.Clean() {
		t.Fatalf("reconcile: %+v, %v", audit, err)
	}
	l, err := fresh.store.Levels(t.Context(), s.pool.SKU)
	if err != nil || l.Free != 0 || l.Held != 1 || l.Sold != 3 || l.Over != 1 {
		t.Errorf("levels are %+v, %v; want the one unpaid order over", l, err)
	}
	if err := fresh.cancel(resold[1].ID); err != nil {
		t.Fatal(err)
	}
	fresh.agrees(0, 0, 3)
	if hold, err := fresh.store.Reserve(t.Context(), s.ask("fay")); !errors.Is(err, stock.ErrSoldOut) {
		t.Errorf("got %+v, %v", hold, err)
	}
}

// cancel ends an order in the ledger and in the store.
func (s *shop) cancel(id stock.ID) error {
	err := s.books.InTx(s.t.Context(), func(tx *sql.Tx) error { return s.books.Cancel(s.t.Context(), tx, id) })
	if err == nil {
		_, err = s.store.Cancel(s.t.Context(), id)
	}
	return err
}

// till is one process of a shop during a sale in which anything may fail.
type till struct {
	*shop
	held, sold atomic.Int64
}

// buy takes a unit through order and payment, under one ID and until it is
// known how each step ended. The error says why it was not bought.
func (s *till) buy(ctx context.Context, r stock.Request) error {
	for ctx.Err() == nil {
		hold, err := s.store.Reserve(ctx, r)
		switch {
		case errors.Is(err, stock.ErrSoldOut):
			return err
		case err != nil: // all held, fenced or unknown: the same ID again
			_ = sleep(ctx)
			continue
		}
		s.held.Add(1)
		switch err := s.place(hold, r.Buyer); {
		case errors.Is(err, stock.ErrFenced): // of an epoch that has ended
			continue
		case err != nil:
			return err
		}
		if err := s.sell(r.ID); err != nil {
			return errors.Join(err, s.books.InTx(ctx, func(tx *sql.Tx) error { return s.books.Cancel(ctx, tx, r.ID) }))
		}
		s.sold.Add(1)
		return s.tell(ctx, r.ID)
	}
	return ctx.Err()
}

// tell lets the store know of a sale. It is no failure if the store has lost
// the hold and nobody has noticed yet: the ledger has it.
func (s *till) tell(ctx context.Context, id stock.ID) error {
	for {
		_, err := s.confirm(ctx, id)
		if err == nil || errors.Is(err, stock.ErrNotFound) || ctx.Err() != nil {
			return ctx.Err()
		}
		_ = sleep(ctx)
	}
}

// sleep keeps who asks in vain from asking without a pause.
func sleep(ctx context.Context) error {
	select {
	case <-time.After(5 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rush is buyers at tills who buy until all is sold.
type rush struct {
	t     *testing.T
	tills []*till
	sync.WaitGroup
	refused atomic.Int64 // sales, by the ledger
}

// begin sends some buyers to each till.
func (r *rush) begin(ctx context.Context, buyers int) {
	for i, s := range r.tills {
		for j := range buyers {
			r.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					err := s.buy(ctx, s.ask(fmt.Sprintf("buyer-%d-%d-%d", i, j, n)))
					switch {
					case errors.Is(err, stock.ErrSoldOut):
						return
					case errors.Is(err, stock.ErrLedger):
						r.refused.Add(1)
						return
					case err != nil && ctx.Err() == nil:
						r.t.Errorf("got %v", err)
						return
					}
				}
			})
		}
	}
}

// progress waits until the count of each till has risen.
func (r *rush) progress(what string, count func(s *till) int64, by int64) {
	r.t.Helper()
	before := make([]int64, len(r.tills))
	for i, s := range r.tills {
		before[i] = count(s)
	}
	until(r.t, what, func() bool {
		for i, s := range r.tills {
			if count(s) < before[i]+by {
				return false
			}
		}
		return true
	})
}

func TestASaleOverAFailoverBySentinelSellsEachUnitOnce(t *testing.T) {
	t.Parallel()
	const total, buyers = 600, 12
	pair := testenv.NewRedisPair(t)
	sentinel := testenv.NewRedisSentinel(t, pair)
	books := newServerLedger(t, nil)
	opts := &redisstock.Options{AutoRebuild: true, Logger: quiet}
	first := newShop(t, sentinel.Client(t), books, opts, func(p *stock.Pool) { p.Total = total })
	client := sentinel.Client(t)
	second := *first.stand
	second.store, second.client = mustStore(t, client, books, opts), client
	tills := []*till{{shop: first}, {shop: &shop{&second, books}}}

	ctx, end := context.WithCancel(t.Context())
	sale := &rush{t: t, tills: tills}
	var running sync.WaitGroup
	defer running.Wait()
	defer sale.Wait()
	defer end()
	for _, s := range tills {
		running.Go(func() { _ = s.store.Run(ctx) })
	}
	sale.begin(ctx, buyers)
	sale.progress("the sale is under way", func(s *till) int64 { return s.sold.Load() }, 10)
	pair.CutLink(t)
	sale.progress("each process has holds that will be lost", func(s *till) int64 { return s.held.Load() }, buyers+1)
	pair.Primary.Kill()
	sentinel.WaitPrimary(t, pair.Replica)
	sale.Wait()

	// Whoever runs has rebuilt what was seen to be lost.
	_, mark, err := books.Pool(t.Context(), first.pool.SKU)
	if err != nil || mark.Epoch < 2 {
		t.Errorf("the pool is in epoch %d, %v; want that it was rebuilt", mark.Epoch, err)
	}
	end()
	running.Wait()
	if audit, err := first.store.Reconcile(t.Context(), first.pool.SKU); err != nil || !audit.Clean() {
		t.Fatalf("reconcile: %+v, %v", audit, err)
	}
	sold := tills[0].sold.Load() + tills[1].sold.Load()
	t.Logf("%d were sold, of which the ledger refused %d; the epoch is %d", sold, sale.refused.Load(), mark.Epoch)
	if sold > total || sold < total-sale.refused.Load() {
		t.Errorf("%d of %d were sold, and the ledger has refused %d", sold, total, sale.refused.Load())
	}
	for _, s := range tills {
		s.agrees(total-sold, 0, sold)
		s.mustBeClean()
	}
}
