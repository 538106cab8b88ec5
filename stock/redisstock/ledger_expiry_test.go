package redisstock_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/sqlledger"
)

const short = 150 * time.Millisecond

// oneUnit is a shop on real servers that has one unit, held shortly by ann.
func oneUnit(t *testing.T, opts *sqlledger.Options, unpaid stock.Unpaid) (*shop, stock.Hold) {
	t.Helper()
	s := newShop(t, testenv.Redis(t).Client(t), newServerLedger(t, opts), nil, func(p *stock.Pool) { p.Total, p.Hold, p.Unpaid = 1, short, unpaid })
	return s, s.hold("ann")
}

// begin opens the order's transaction of a hold and leaves it open.
func (s *shop) begin(hold stock.Hold, buyer string) *sql.Tx {
	s.t.Helper()
	tx, err := s.books.db.BeginTx(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = tx.Rollback() })
	if _, err := s.books.Place(s.t.Context(), tx, hold, buyer); err != nil {
		s.t.Fatalf("place: %v", err)
	}
	return tx
}

func TestAnOrderThatIsOpenAtItsExpiryAndCommitsKeepsItsUnit(t *testing.T) {
	t.Parallel()
	s, hold := oneUnit(t, &sqlledger.Options{ExpireWait: time.Millisecond}, stock.KeepUnits)
	tx := s.begin(hold, "ann")
	awaitServer(t, s.client, short)
	for range 3 { // while it is open the unit is neither resold nor sold out
		if _, err := s.store.Reserve(t.Context(), s.ask("bob")); !errors.Is(err, stock.ErrAllHeld) {
			t.Fatalf("got %v, want all held", err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.sell(hold.ID); err != nil {
		t.Fatalf("sell: %v", err)
	}
	until(t, "the ledger's word is heard", func() bool {
		_, err := s.store.Reserve(t.Context(), s.ask("bob"))
		return errors.Is(err, stock.ErrSoldOut)
	})
	if got := s.state(hold.ID); got != stock.Sold {
		t.Errorf("the order is %v, want sold", got)
	}
	s.agrees(0, 0, 1)
}

func TestAnOrderThatIsOpenAtItsExpiryAndRollsBackGivesItsUnitToAnother(t *testing.T) {
	t.Parallel()
	s, hold := oneUnit(t, patient, stock.LoseUnits)
	tx := s.begin(hold, "ann")
	awaitServer(t, s.client, short)
	if _, err := s.store.Reserve(t.Context(), s.ask("bob")); !errors.Is(err, stock.ErrAllHeld) {
		t.Fatalf("got %v, want all held", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	until(t, "another gets the unit", func() bool {
		_, err := s.store.Reserve(t.Context(), s.ask("bob"))
		return err == nil
	})
	if err := s.place(hold, "ann"); !errors.Is(err, stock.ErrTooLate) {
		t.Errorf("the late order: %v, want too late", err)
	}
	if got := s.state(hold.ID); got != stock.Expired {
		t.Errorf("the first hold is %v", got)
	}
}

func TestAnOrderThatComesAfterItsUnitWentToAnotherIsTooLate(t *testing.T) {
	t.Parallel()
	s, hold := oneUnit(t, nil, stock.LoseUnits)
	awaitServer(t, s.client, short)
	other := s.take("bob")
	if err := s.place(hold, "ann"); !errors.Is(err, stock.ErrTooLate) {
		t.Errorf("got %v, want too late", err)
	}
	if err := s.place(other, "bob"); err != nil {
		t.Errorf("the new holder's order: %v", err)
	}
}

func TestAnUndecidedHoldHoldsUpNeitherOthersNorIsItForgotten(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Redis(t).Client(t), newServerLedger(t, patient), nil, func(p *stock.Pool) { p.Total, p.Hold = 20, short })
	open := s.hold("ann")
	tx := s.begin(open, "ann")
	for i := range 19 {
		s.hold(name(i))
	}
	awaitServer(t, s.client, short)
	for i := range 19 { // all but the undecided one are taken over
		// and confirmed, lest they end again on a slow machine
		if _, err := s.store.Confirm(t.Context(), s.take(name(100+i)).ID); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // a loser's question about the next expiry must not drop it from the index
		if _, err := s.store.Reserve(t.Context(), s.ask("late")); err == nil {
			t.Fatal("the undecided unit was sold")
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	until(t, "its unit is free", func() bool {
		if err := redisstock.SweepOnce(t.Context(), s.store, s.pool.SKU); err != nil {
			t.Fatal(err)
		}
		return s.state(open.ID) == stock.Expired
	})
}

// take reserves for a buyer, again while all units seem held: a slow ledger is
// waited for only for a moment.
func (s *shop) take(buyer string) (hold stock.Hold) {
	s.t.Helper()
	r := s.ask(buyer)
	until(s.t, "a unit for "+buyer, func() bool {
		var err error
		if hold, err = s.store.Reserve(s.t.Context(), r); err != nil && !errors.Is(err, stock.ErrAllHeld) {
			s.t.Fatalf("got %v", err)
		}
		return err == nil
	})
	return hold
}

func TestABuyerAtItsLimitWithAnUndecidedHoldIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t) // whose calls can be counted
	s := newShop(t, server.Client(t), newServerLedger(t, patient), nil, func(p *stock.Pool) { p.Hold, p.Limit = short, 1 })
	s.begin(s.hold("ann"), "ann")
	awaitServer(t, s.client, short)
	for range 3 {
		if _, err := s.store.Reserve(t.Context(), s.ask("ann")); !errors.Is(err, stock.ErrLimit) {
			t.Fatalf("got %v, want limit", err)
		}
	}
	calls := s.scriptCalls()
	if _, err := s.store.Reserve(t.Context(), s.ask("ann")); !errors.Is(err, stock.ErrLimit) {
		t.Fatalf("got %v, want limit", err)
	}
	if n := s.scriptCalls() - calls; n > 50 {
		t.Errorf("one refusal took %d script calls", n)
	}
}

func TestTheLedgersVerdictsReachTheStore(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		unpaid  stock.Unpaid
		prepare func(s *shop, hold stock.Hold) error
		state   stock.State
		counts  [3]int64
	}{
		"no order: the unit is free": {
			stock.LoseUnits, func(*shop, stock.Hold) error { return nil }, stock.Expired, [3]int64{1, 0, 0},
		},
		"an unpaid order loses its unit": {
			stock.LoseUnits, func(s *shop, h stock.Hold) error { return s.place(h, "ann") }, stock.Expired, [3]int64{1, 0, 0},
		},
		"an unpaid order keeps its unit": {
			stock.KeepUnits, func(s *shop, h stock.Hold) error { return s.place(h, "ann") }, stock.Held, [3]int64{0, 1, 0},
		},
		"a sale the store had not heard of is sold": {
			stock.LoseUnits, func(s *shop, h stock.Hold) error { return errors.Join(s.place(h, "ann"), s.sell(h.ID)) }, stock.Sold, [3]int64{0, 0, 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, hold := oneUnit(t, nil, test.unpaid)
			if err := test.prepare(s, hold); err != nil {
				t.Fatal(err)
			}
			awaitServer(t, s.client, short)
			for range 2 {
				if err := redisstock.SweepOnce(t.Context(), s.store, s.pool.SKU); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.state(hold.ID); got != test.state {
				t.Errorf("the hold is %v, want %v", got, test.state)
			}
			s.levels(test.counts[0], test.counts[1], test.counts[2])
			inOrder(t, 1, s.events())
		})
	}
}

func TestAKeptOrderEndsOnlyByItsApplication(t *testing.T) {
	t.Parallel()
	s, hold := oneUnit(t, nil, stock.KeepUnits)
	if err := s.place(hold, "ann"); err != nil {
		t.Fatal(err)
	}
	awaitServer(t, s.client, short)
	for range 3 {
		if _, err := s.store.Reserve(t.Context(), s.ask("bob")); !errors.Is(err, stock.ErrAllHeld) {
			t.Fatalf("got %v, want all held", err)
		}
	}
	if err := s.books.InTx(t.Context(), func(tx *sql.Tx) error { return s.books.Cancel(t.Context(), tx, hold.ID) }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Cancel(t.Context(), hold.ID); err != nil {
		t.Fatal(err)
	}
	s.hold("bob")
}

func TestALedgerThatIsDownStopsNoSaleOfFreeUnits(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Redis(t).Client(t), newLedger(t, nil), nil, func(p *stock.Pool) { p.Total, p.Hold = 2, short })
	s.hold("ann")
	_ = s.books.db.Close()
	awaitServer(t, s.client, short)
	s.hold("bob")
	if _, err := s.store.Reserve(t.Context(), s.ask("cay")); err == nil || errors.Is(err, stock.ErrSoldOut) {
		t.Errorf("got %v; a unit that nobody may decide on is neither sold nor sold out", err)
	}
	s.levels(0, 2, 0)
}
