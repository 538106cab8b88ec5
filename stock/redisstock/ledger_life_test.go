package redisstock_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/stocktest"
)

// adjustment adds units on the first version of the terms.
func (s *stand) adjustment(units int64) stock.Adjustment {
	return stock.Adjustment{ID: stocktest.Claim(), SKU: s.pool.SKU, Version: 1, Add: []stock.Line{{Quantity: units}}}
}

func TestABasketIsOrderedSoldAndRebuiltFromTheLedger(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	s := newShop(t, server.Client(t), newLedger(t, nil), nil, func(p *stock.Pool) {
		p.Total, p.Items = 0, []stock.Item{{SKU: "a", Total: 5}, {SKU: "b", Total: 4}, {SKU: "c", Total: 3}}
	})
	basket := func(buyer string, lines ...stock.Line) stock.Hold {
		t.Helper()
		r := s.ask(buyer)
		r.Quantity, r.Lines = 0, lines
		hold, err := s.store.Reserve(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.place(hold, buyer); err != nil {
			t.Fatal(err)
		}
		return hold
	}
	a2, b1, c1 := stock.Line{SKU: "a", Quantity: 2}, stock.Line{SKU: "b", Quantity: 1}, stock.Line{SKU: "c", Quantity: 1}
	part := basket("ann", a2, b1)
	held := basket("bob", c1, b1)
	whole := basket("cay", a2, c1)
	if err := s.sell(whole.ID); err != nil {
		t.Fatal(err)
	}
	a1 := stock.Line{SKU: "a", Quantity: 1}
	err := s.books.InTx(t.Context(), func(tx *sql.Tx) error { return s.books.Sell(t.Context(), tx, part.ID, a1, b1) })
	if err != nil {
		t.Fatal(err)
	}
	server.RestartEmpty()
	if _, err := s.store.Rebuild(t.Context(), s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	s.levels(5, 2, 5)
	l, err := s.store.Levels(t.Context(), s.pool.SKU)
	if err != nil || len(l.Items) != 3 || l.Items[0].Sold != 3 || l.Items[1].Sold != 1 || l.Items[1].Held != 1 || l.Items[2].Free != 1 {
		t.Errorf("levels %+v, %v", l, err)
	}
	if hold, err := s.store.Lookup(t.Context(), part.ID); err != nil || hold.Quantity != 2 || hold.Asked() != 3 {
		t.Errorf("the part: %+v, %v", hold, err)
	}
	if err := s.is(held.ID, stock.Held); err != nil {
		t.Error(err)
	}
	s.found(s.audit())
}

func TestAPartThatTheLedgerSoldReachesTheStoreAtItsExpiry(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Redis(t).Client(t), newLedger(t, nil), nil, func(p *stock.Pool) { p.Hold = short })
	r := s.ask("ann")
	r.Quantity = 3
	hold, err := s.store.Reserve(t.Context(), r)
	if err == nil {
		err = s.place(hold, "ann")
	}
	if err == nil {
		err = s.books.InTx(t.Context(), func(tx *sql.Tx) error {
			return s.books.Sell(t.Context(), tx, hold.ID, stock.Line{Quantity: 2})
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	awaitServer(t, s.client, short)
	if err := redisstock.SweepOnce(t.Context(), s.store, s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	s.levels(8, 0, 2)
	s.found(s.audit())
}

func TestALatePaymentReservesAnewUnderTheIDThatItsFirstOneNames(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Redis(t).Client(t), newLedger(t, nil), nil, func(p *stock.Pool) { p.Total, p.Hold, p.Limit = 1, short, 1 })
	hold := s.order("ann")
	awaitServer(t, s.client, short)
	if err := redisstock.SweepOnce(t.Context(), s.store, s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	if err := s.sell(hold.ID); !errors.Is(err, stock.ErrExpired) {
		t.Fatalf("got %v", err)
	}
	for range 2 { // the worker may try twice
		r := stock.Request{ID: hold.ID.Late(), SKU: s.pool.SKU, Buyer: "ann", Quantity: 1}
		again, err := s.store.Reserve(t.Context(), r)
		if err == nil {
			err = s.place(again, "ann")
		}
		if err == nil {
			err = s.sell(again.ID)
		}
		if err == nil {
			_, err = s.store.Confirm(t.Context(), again.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.levels(0, 0, 1)
	s.found(s.audit())
}

func TestAnAdjustmentThatDiedAfterTheLedgerIsFollowedByWhoeverRuns(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Redis(t).Client(t), newLedger(t, nil), nil, nil)
	a := s.adjustment(5)
	if _, err := s.books.Adjust(t.Context(), a); err != nil { // and its process dies
		t.Fatal(err)
	}
	s.levels(10, 0, 0)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var run sync.WaitGroup
	run.Go(func() { _ = s.store.Run(ctx) })
	until(t, "the terms are followed", func() bool { return s.counts(15, 0, 0) == nil })
	stop()
	run.Wait()
	if l, err := s.store.Adjust(t.Context(), a); err != nil || l.Total != 15 || l.Version != 2 {
		t.Errorf("its repeat: %+v, %v", l, err)
	}
}

func TestUnitsThatADeadAdjustmentHeldBackAreForSaleAgain(t *testing.T) {
	t.Parallel()
	books := newLedger(t, nil)
	dead := &refusing{books: books, err: errors.New("its process dies")}
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, dead, nil), client, nil)
	dead.on.Store(true)
	if _, err := s.store.Adjust(t.Context(), s.adjustment(-4)); err == nil {
		t.Fatal("it succeeds")
	}
	s.levels(6, 0, 0) // held back: nobody gets them meanwhile
	dead.on.Store(false)
	if _, err := s.store.Adjust(t.Context(), s.adjustment(-10)); err != nil { // finds all ten
		t.Fatal(err)
	}
	s.levels(0, 0, 0)
	if terms, _, err := books.Pool(t.Context(), s.pool.SKU); err != nil || terms.Total != 0 || terms.Version != 2 {
		t.Errorf("the ledger has %+v, %v", terms, err)
	}
}

// refusing is a ledger that fails to adjust while it is on.
type refusing struct {
	*books
	on  atomic.Bool
	err error
}

func (r *refusing) Adjust(ctx context.Context, a stock.Adjustment) (stock.Terms, error) {
	if r.on.Load() {
		return stock.Terms{}, r.err
	}
	return r.books.Adjust(ctx, a)
}

func TestTakingOutWhileACrowdBuysNeverSellsMoreThanIsLeft(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Redis(t).Client(t), newServerLedger(t, nil), nil, func(p *stock.Pool) { p.Total = 100 })
	var won atomic.Int64
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				r := s.ask(name(i))
				hold, err := s.store.Reserve(t.Context(), r)
				if err != nil {
					continue
				}
				if s.place(hold, r.Buyer) == nil && s.sell(hold.ID) == nil {
					_, _ = s.store.Confirm(t.Context(), hold.ID)
					won.Add(1)
				}
			}
		})
	}
	all.Go(func() {
		for range 10 {
			l, err := s.store.Levels(t.Context(), s.pool.SKU)
			if err != nil {
				t.Errorf("levels: %v", err)
				return
			}
			a := s.adjustment(-5)
			a.Version = l.Version
			if _, err := s.store.Adjust(t.Context(), a); err != nil && !errors.Is(err, stock.ErrOver) {
				t.Errorf("adjust: %v", err)
			}
		}
	})
	all.Wait()
	l, err := s.store.Levels(t.Context(), s.pool.SKU)
	if err != nil || l.Over != 0 || l.Sold != won.Load() || l.Free+l.Sold != l.Total {
		t.Errorf("levels %+v, %v; %d have won", l, err, won.Load())
	}
	if totals, err := s.books.Totals(t.Context(), s.pool.SKU); err != nil || totals.Total != l.Total || totals.Sold != l.Sold {
		t.Errorf("the ledger has %+v, %v", totals, err)
	}
	s.found(s.audit())
}

func TestWhatStoreAndLedgerDisagreeOnIsNamedAndMendedByTheLedger(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Redis(t).Client(t), newLedger(t, nil), nil, nil)
	soldThere := s.order("ann")                // sold in the ledger, and the store never heard
	lostHere := s.sold("bob")                  // sold in both, and the store has lost it
	soldHere := s.order("cay")                 // confirmed in the store, though the ledger has not sold it
	cancelledThere := s.order("dan")           // cancelled in the ledger, and the store never heard
	fine, open := s.sold("eve"), s.hold("fay") // nothing is wrong with these; fay has no order yet
	err := errors.Join(s.sell(soldThere.ID), s.books.InTx(t.Context(), func(tx *sql.Tx) error {
		return s.books.Cancel(t.Context(), tx, cancelledThere.ID)
	}))
	if _, confirm := s.store.Confirm(t.Context(), soldHere.ID); err != nil || confirm != nil {
		t.Fatal(err, confirm)
	}
	s.client.HDel(t.Context(), s.keys()[0], field("bob"))

	a := s.audit()
	named := map[stock.ID]bool{}
	for _, f := range a.Faults {
		if f.Kind == stock.FaultLedger {
			named[f.ID] = true
		}
	}
	for _, id := range []stock.ID{soldThere.ID, lostHere.ID, soldHere.ID, cancelledThere.ID} {
		if !named[id] {
			t.Errorf("%v is not named: %v", id, a.Faults)
		}
	}
	if named[fine.ID] || named[open.ID] || len(named) != 4 {
		t.Errorf("named are %v", a.Faults)
	}
	if a = s.reconcile(); !a.Clean() {
		t.Errorf("after the repair: %v", a.Faults)
	}
	for id, want := range map[stock.ID]stock.State{
		soldThere.ID: stock.Sold, lostHere.ID: stock.Sold, soldHere.ID: stock.Held, cancelledThere.ID: stock.Cancelled,
		fine.ID: stock.Sold, open.ID: stock.Held,
	} {
		if err := s.is(id, want); err != nil {
			t.Errorf("%v: %v", id, err)
		}
	}
	s.levels(5, 2, 3)
}

func TestAnAttemptOlderThanTheRetentionIsAnsweredByTheLedgersRow(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newShop(t, client, newLedger(t, nil), nil, nil)
	r := s.ask("ann")
	hold, err := s.store.Reserve(t.Context(), r)
	if err == nil {
		err = errors.Join(s.place(hold, "ann"), s.sell(hold.ID))
	}
	if err != nil {
		t.Fatal(err)
	}
	client.HDel(t.Context(), s.keys()[0], field("ann")) // forgotten
	r.Born = serverTime(t, client).Add(-48 * time.Hour)
	if again, err := s.store.Reserve(t.Context(), r); err != nil || again.State != stock.Sold || !again.Repeated {
		t.Errorf("got %+v, %v", again, err)
	}
	other := s.ask("bob")
	other.Born = r.Born
	if _, err := s.store.Reserve(t.Context(), other); !errors.Is(err, stock.ErrTooLate) {
		t.Errorf("got %v", err)
	}
}

func TestARetiredPoolIsRefusedByEveryProcessAndItsRowsStay(t *testing.T) {
	t.Parallel()
	client, books := testenv.Redis(t).Client(t), newLedger(t, nil)
	s := newShop(t, client, books, nil, nil)
	other := mustStore(t, client, books, nil)
	if _, err := other.Open(t.Context(), s.pool); err != nil {
		t.Fatal(err)
	}
	s.sold("ann")
	if err := s.pause(); err != nil {
		t.Fatal(err)
	}
	s.drain()
	if err := s.store.Retire(t.Context(), s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	client.Del(t.Context(), s.keys()...) // the retention is over
	for i, store := range []*redisstock.Store{s.store, other, mustStore(t, client, books, nil)} {
		_, reserve := store.Reserve(t.Context(), s.ask("bob"))
		_, open := store.Open(t.Context(), s.pool)
		_, rebuild := store.Rebuild(t.Context(), s.pool.SKU)
		for step, err := range map[string]error{"reserve": reserve, "open": open, "rebuild": rebuild} {
			if !errors.Is(err, stock.ErrRetired) {
				t.Errorf("process %d, %s: %v", i, step, err)
			}
		}
	}
	if totals, err := books.Totals(t.Context(), s.pool.SKU); err != nil || totals.Sold != 1 {
		t.Errorf("the ledger has %+v, %v", totals, err)
	}
}

func TestASweeperThatDiesBetweenLedgerAndStoreLosesNoUnit(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Redis(t).Client(t), newLedger(t, nil), nil, func(p *stock.Pool) { p.Total, p.Hold = 3, short })
	var ids []stock.ID
	for i := range 3 {
		ids = append(ids, s.hold(name(i)).ID)
	}
	awaitServer(t, s.client, short)
	if _, err := s.books.Expire(t.Context(), s.pool.SKU, ids); err != nil { // it asks, and is killed
		t.Fatal(err)
	}
	s.levels(0, 3, 0)
	crowd(4, func(int) {
		if err := redisstock.SweepOnce(t.Context(), s.store, s.pool.SKU); err != nil {
			t.Errorf("sweep: %v", err)
		}
	})
	s.levels(3, 0, 0)
	inOrder(t, 1, s.events())
}

func TestAFreshProcessThatKnowsAnIDAloneFindsItsPoolThoughRedisIsEmpty(t *testing.T) {
	t.Parallel()
	server, books := testenv.NewRedis(t), newLedger(t, nil)
	s := newShop(t, server.Client(t), books, nil, nil)
	id := s.sold("ann").ID
	server.RestartEmpty()
	fresh := mustStore(t, server.Client(t), books, nil)
	if hold, err := fresh.Confirm(t.Context(), id); !errors.Is(err, stock.ErrFenced) {
		t.Fatalf("got %+v, %v; want fenced", hold, err)
	}
	if _, err := fresh.Rebuild(t.Context(), s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	if hold, err := fresh.Confirm(t.Context(), id); err != nil || hold.State != stock.Sold {
		t.Errorf("got %+v, %v", hold, err)
	}
	stranger := stock.NewID("nothing", "ann", stocktest.Claim())
	if _, err := mustStore(t, server.Client(t), books, nil).Lookup(t.Context(), stranger); !errors.Is(err, stock.ErrUnknownSKU) {
		t.Errorf("got %v", err)
	}
}

func TestARetirementThatDiedBeforeItDeletedTheKeysIsFinishedByItsRepeat(t *testing.T) {
	t.Parallel()
	client, books := testenv.Redis(t).Client(t), newLedger(t, nil)
	s := newShop(t, client, books, nil, nil)
	s.sold("ann")
	if err := s.pause(); err != nil {
		t.Fatal(err)
	}
	s.drain()
	s.edit("m", `,o,`, ",r,") // it has ended the pool in Redis and in the ledger, and dies
	if err := books.Retire(t.Context(), s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	if err := mustStore(t, client, books, nil).Retire(t.Context(), s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	if n := client.Exists(t.Context(), s.keys()[1:]...).Val(); n != 0 {
		t.Errorf("%d of its keys are left", n)
	}
	if ttl := client.PTTL(t.Context(), s.keys()[0]).Val(); ttl <= 0 {
		t.Errorf("what answers for it stays for ever: %v", ttl)
	}
}
