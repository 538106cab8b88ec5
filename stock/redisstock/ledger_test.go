package redisstock_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/sqlledger"
	"github.com/firstcome/firstcome/stock/stocktest"
)

// shop is a stand with a ledger.
type shop struct {
	*stand
	books *books
}

func newShop(t testing.TB, client redis.UniversalClient, books *books, opts *redisstock.Options, edit func(p *stock.Pool)) *shop {
	t.Helper()
	return &shop{newStand(t, mustStore(t, client, books, opts), client, edit), books}
}

// place commits the order of a hold.
func (s *shop) place(hold stock.Hold, buyer string) error {
	return s.books.InTx(s.t.Context(), func(tx *sql.Tx) error {
		_, err := s.books.Place(s.t.Context(), tx, hold, buyer)
		return err
	})
}

// sell makes an order final in the ledger, not yet in the store.
func (s *shop) sell(id stock.ID) error {
	return s.books.InTx(s.t.Context(), func(tx *sql.Tx) error { return s.books.Sell(s.t.Context(), tx, id) })
}

// order reserves a unit and commits its order.
func (s *shop) order(buyer string) stock.Hold {
	s.t.Helper()
	hold := s.hold(buyer)
	if err := s.place(hold, buyer); err != nil {
		s.t.Fatalf("place: %v", err)
	}
	return hold
}

// sold orders a unit and makes it final in ledger and store.
func (s *shop) sold(buyer string) stock.Hold {
	s.t.Helper()
	hold := s.order(buyer)
	if err := s.sell(hold.ID); err != nil {
		s.t.Fatalf("sell: %v", err)
	}
	hold, err := s.store.Confirm(s.t.Context(), hold.ID)
	if err != nil {
		s.t.Fatalf("confirm: %v", err)
	}
	return hold
}

// agrees fails the test unless store and ledger count the same.
func (s *shop) agrees(free, held, sold int64) {
	s.t.Helper()
	s.levels(free, held, sold)
	totals, err := s.books.Totals(s.t.Context(), s.pool.SKU)
	if err != nil || totals.Total != free+held+sold || totals.Held != held || totals.Sold != sold {
		s.t.Fatalf("the ledger counts %+v, %v; want held %d, sold %d", totals, err, held, sold)
	}
}

func (s *shop) state(id stock.ID) stock.State {
	s.t.Helper()
	hold, err := s.store.Lookup(s.t.Context(), id)
	if err != nil && !errors.Is(err, stock.ErrNotFound) {
		s.t.Fatalf("lookup: %v", err)
	}
	return hold.State
}

// patient is a test's policy: an order transaction that is open is not waited for.
var patient = &sqlledger.Options{ExpireWait: time.Millisecond}

func TestConformanceWithALedger(t *testing.T) {
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		c, books := newClock(t), newLedger(t, nil)
		client := redis.NewClient(&redis.Options{Addr: c.server.Addr()})
		t.Cleanup(func() { _ = client.Close() })
		stocktest.Run(t, stocktest.Harness{
			Ledger: true,
			New:    func(t *testing.T) stock.Store { return mustStore(t, client, books, nil) },
			Now:    func(*testing.T) time.Time { return c.now },
			Pass:   func(_ *testing.T, d time.Duration) { c.pass(d) },
		})
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		client := testenv.Redis(t).Client(t)
		books := newServerLedger(t, nil)
		stocktest.Run(t, stocktest.Harness{
			Ledger: true,
			New:    func(t *testing.T) stock.Store { return mustStore(t, client, books, nil) },
			Now:    func(t *testing.T) time.Time { return serverTime(t, client) },
			Pass:   func(t *testing.T, d time.Duration) { awaitServer(t, client, d) },
		})
	})
}

func TestManyProcessesOpenOnePoolAtOnce(t *testing.T) {
	t.Parallel()
	client, books := testenv.Redis(t).Client(t), newServerLedger(t, nil)
	pool := stock.Pool{SKU: testenv.Name(t), Total: 7, Hold: time.Hour}
	crowd(8, func(int) {
		l, err := mustStore(t, client, books, nil).Open(t.Context(), pool)
		if err != nil || l.Free != 7 || l.Total != 7 {
			t.Errorf("got %+v, %v", l, err)
		}
	})
}

func TestAnEmptyServerIsRebuiltFromTheLedger(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	s := newShop(t, server.Client(t), newServerLedger(t, nil), nil, func(p *stock.Pool) { p.Limit = 2 })
	sold, ordered, promised := s.sold("ann"), s.order("bob"), s.hold("cay")
	unheard := s.order("dan") // sold in the ledger; the store did not hear of it
	if err := s.sell(unheard.ID); err != nil {
		t.Fatal(err)
	}
	server.RestartEmpty()
	s.mustBeFenced(sold.ID)
	l, err := s.store.Rebuild(t.Context(), s.pool.SKU)
	if err != nil || l.Free != 7 || l.Held != 1 || l.Sold != 2 {
		t.Fatalf("rebuilt: %+v, %v", l, err)
	}
	s.agrees(7, 1, 2)
	for id, want := range map[stock.ID]stock.State{sold.ID: stock.Sold, ordered.ID: stock.Held, unheard.ID: stock.Sold, promised.ID: 0} {
		if got := s.state(id); got != want {
			t.Errorf("%v is %v, want %v", id, got, want)
		}
	}
	if err := s.place(promised, "cay"); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("an order of the lost epoch: %v", err)
	}
	again, err := s.store.Reserve(t.Context(), stock.Request{ID: promised.ID, SKU: s.pool.SKU, Buyer: "cay", Quantity: 1})
	if err != nil || again.Epoch <= promised.Epoch {
		t.Fatalf("the same ID in the new epoch: %+v, %v", again, err)
	}
	if err := s.place(again, "cay"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Reserve(t.Context(), s.ask("ann")); err != nil {
		t.Errorf("ann may have one more: %v", err)
	}
	if _, err := s.store.Reserve(t.Context(), s.ask("ann")); !errors.Is(err, stock.ErrLimit) {
		t.Errorf("ann's limit counts what was sold before: %v", err)
	}
}

func TestManyProcessesRebuildOnePoolAtOnce(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	client, books := server.Client(t), newServerLedger(t, nil)
	s := newShop(t, client, books, nil, func(p *stock.Pool) { p.Total = 2000 })
	var ordered atomic.Int64
	crowd(20, func(i int) {
		for range 60 { // more than two pages
			hold, err := s.store.Reserve(t.Context(), s.ask(name(i)))
			if err == nil {
				err = s.place(hold, name(i))
			}
			if err != nil {
				t.Errorf("order: %v", err)
				return
			}
			ordered.Add(1)
		}
	})
	server.RestartEmpty()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	crowd(6, func(int) {
		l, err := mustStore(t, client, books, nil).Rebuild(ctx, s.pool.SKU)
		if err != nil || l.Held != ordered.Load() {
			t.Errorf("got %+v, %v; want %d held", l, err, ordered.Load())
		}
	})
	s.agrees(2000-ordered.Load(), ordered.Load(), 0)
	if _, mark, err := books.Pool(t.Context(), s.pool.SKU); err != nil || mark.Epoch > 7 {
		t.Errorf("the epoch is %d, %v", mark.Epoch, err)
	}
}

func TestRunRebuildsAFencedPoolWhereItIsAskedTo(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	s := newShop(t, server.Client(t), newServerLedger(t, nil), &redisstock.Options{AutoRebuild: true, Logger: quiet}, nil)
	s.sold("ann")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var run sync.WaitGroup
	run.Go(func() { _ = s.store.Run(ctx) })
	server.RestartEmpty()
	until(t, "the pool is open again", func() bool {
		_, err := s.store.Reserve(t.Context(), s.ask("bob"))
		if err != nil && !errors.Is(err, stock.ErrFenced) && !errors.Is(err, stock.ErrUnknown) {
			t.Fatalf("got %v", err)
		}
		return err == nil
	})
	s.levels(8, 1, 1)
	stop()
	run.Wait()
}

func TestARolledBackServerIsFencedByAProcessThatHasJustStarted(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newShop(t, client, newServerLedger(t, nil), nil, nil)
	s.sold("ann")
	before := s.stand.state()
	s.hold("bob")
	s.runUntilMarked()
	s.set(before)
	s.store = mustStore(t, client, s.books, nil) // it has seen nothing; the ledger has
	if _, err := s.store.Reserve(t.Context(), s.ask("cay")); !errors.Is(err, stock.ErrFenced) {
		t.Fatalf("got %v, want fenced", err)
	}
	if _, err := mustStore(t, client, s.books, nil).Open(t.Context(), s.pool); !errors.Is(err, stock.ErrFenced) {
		t.Fatalf("open: got %v, want fenced", err)
	}
	if _, err := s.store.Rebuild(t.Context(), s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	s.agrees(9, 0, 1)
	s.hold("cay")
}

// runUntilMarked runs the store until the ledger knows how far it has come.
func (s *shop) runUntilMarked() {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	defer stop()
	var run sync.WaitGroup
	run.Go(func() { _ = s.store.Run(ctx) })
	seq := strings.Split(s.client.HGet(ctx, s.keys()[0], "m").Val(), ",")[1]
	until(s.t, "the mark is saved", func() bool {
		_, mark, err := s.books.Pool(ctx, s.pool.SKU)
		return err == nil && seq == itoa(mark.Seq)
	})
	stop()
	run.Wait()
}
