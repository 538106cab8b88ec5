package redisstock_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// eachClock runs a test on a pool of a real server whose clock it moves, without
// a ledger and with one. Holds last ten minutes.
func eachClock(t *testing.T, total int64, test func(t *testing.T, s *shop, clock *testenv.RedisClock)) {
	for name, books := range map[string]func(t *testing.T) *books{
		"without a ledger": func(*testing.T) *books { return nil },
		"with a ledger":    func(t *testing.T) *books { return newServerLedger(t, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, clock := testenv.NewRedisClock(t)
			client := server.Client(t)
			s := &shop{books: books(t)}
			var ledger stock.Ledger // nil itself where there are no books
			if s.books != nil {
				ledger = s.books
			}
			s.stand = newStand(t, mustStore(t, client, ledger, nil), client, func(p *stock.Pool) { p.Total, p.Hold = total, 10*time.Minute })
			test(t, s, clock)
		})
	}
}

// promise is a request with the hold that it got.
type promise struct {
	stock.Request
	hold stock.Hold
}

func (s *shop) promise(buyer string) promise {
	s.t.Helper()
	r := s.ask(buyer)
	hold, err := s.store.Reserve(s.t.Context(), r)
	if err != nil {
		s.t.Fatalf("reserve: %v", err)
	}
	return promise{r, hold}
}

// pay sells what is held, in the ledger first where there is one.
func (s *shop) pay(hold stock.Hold, buyer string) {
	s.t.Helper()
	if s.books != nil {
		if err := errors.Join(s.place(hold, buyer), s.sell(hold.ID)); err != nil {
			s.t.Fatalf("ledger: %v", err)
		}
	}
	if got, err := s.confirm(s.t.Context(), hold.ID); err != nil || got.State != stock.Sold {
		s.t.Fatalf("confirm: %+v, %v", got, err)
	}
}

// expire frees what is past its time by the server's clock, as Run does.
func (s *shop) expire() {
	s.t.Helper()
	if err := redisstock.SweepOnce(s.t.Context(), s.store, s.pool.SKU); err != nil {
		s.t.Fatalf("sweep: %v", err)
	}
}

// mustHaveEnded fails the test unless a promise has ended by time, for good.
func (s *shop) mustHaveEnded(p promise) {
	s.t.Helper()
	if hold, err := s.confirm(s.t.Context(), p.ID); !errors.Is(err, stock.ErrExpired) {
		s.t.Errorf("%s confirms: got %+v, %v; want expired", p.Buyer, hold, err)
	}
	s.mustRepeat(p, stock.Expired)
	if s.books != nil {
		if err := s.place(p.hold, p.Buyer); !errors.Is(err, stock.ErrTooLate) {
			s.t.Errorf("%s orders: got %v, want too late", p.Buyer, err)
		}
	}
}

// mustRepeat fails the test unless the ID stands so and is not run once more.
func (s *shop) mustRepeat(p promise, want stock.State) {
	s.t.Helper()
	hold, err := s.store.Reserve(s.t.Context(), p.Request)
	if err != nil || !hold.Repeated || hold.State != want {
		s.t.Errorf("%s again: got %+v, %v; want %v", p.Buyer, hold, err, want)
	}
	if want == stock.Held && !hold.Expires.Equal(p.hold.Expires) {
		s.t.Errorf("%s was promised till %v, and now %v", p.Buyer, p.hold.Expires, hold.Expires)
	}
}

// ended are the events of a promise that ended by time and that somebody then
// tried to confirm. With a ledger the store is not asked to take a late payment.
func (s *shop) ended() []stock.EventKind {
	kinds := []stock.EventKind{stock.EventReserved, stock.EventExpired}
	if s.books == nil {
		kinds = append(kinds, stock.EventLate)
	}
	return kinds
}

var paid = []stock.EventKind{stock.EventReserved, stock.EventConfirmed}

func TestAServersClockThatJumpsAnHourAheadEndsHoldsAndSellsNoUnitTwice(t *testing.T) {
	t.Parallel()
	eachClock(t, 4, func(t *testing.T, s *shop, clock *testenv.RedisClock) {
		happened := make(map[stock.ID][]stock.EventKind)
		sold := s.promise("ann")
		s.pay(sold.hold, "ann")
		happened[sold.ID] = paid
		var ended []promise
		for _, buyer := range []string{"bob", "cay", "dan"} {
			ended = append(ended, s.promise(buyer))
		}
		s.levels(0, 3, 1)
		clock.Set(t, time.Hour)
		if s.books == nil { // its time alone ends it, before anybody has swept
			s.mustHaveEnded(ended[0])
		}
		var others []stock.Hold
		for _, buyer := range []string{"eve", "fay", "gus"} { // their units go to others, once
			others = append(others, s.take(buyer))
		}
		if err := wants(s.try(s.ask("hal")), stock.ErrAllHeld); err != nil {
			t.Error(err)
		}
		for range 2 {
			for _, p := range ended {
				s.mustHaveEnded(p)
				happened[p.ID] = s.ended()
			}
			s.mustRepeat(sold, stock.Sold)
			s.levels(0, 3, 1)
			clock.Set(t, 0) // and the clock's being right again changes nothing
		}
		for i, hold := range others {
			s.pay(hold, []string{"eve", "fay", "gus"}[i])
			happened[hold.ID] = paid
		}
		if err := wants(s.try(s.ask("hal")), stock.ErrSoldOut); err != nil {
			t.Error(err)
		}
		s.levels(0, 0, 4)
		s.mustBeClean()
		s.hasHappened(happened)
	})
}

func TestAServersClockThatJumpsAheadTakesNoUnitFromAPaidOrder(t *testing.T) {
	t.Parallel()
	server, clock := testenv.NewRedisClock(t)
	s := newShop(t, server.Client(t), newServerLedger(t, nil), nil, func(p *stock.Pool) { p.Total = 2 })
	unpaid, paid := s.order("ann"), s.order("bob")
	if err := s.sell(paid.ID); err != nil { // the store has not heard of it
		t.Fatal(err)
	}
	clock.Set(t, 2*time.Hour)
	other := s.take("cay")
	if err := s.sell(unpaid.ID); !errors.Is(err, stock.ErrExpired) {
		t.Errorf("the order that was not paid for: got %v, want expired", err)
	}
	until(t, "the ledger's word is heard", func() bool {
		s.expire()
		return s.state(paid.ID) == stock.Sold
	})
	s.pay(other, "cay")
	if err := wants(s.try(s.ask("dan")), stock.ErrSoldOut); err != nil {
		t.Error(err)
	}
	s.agrees(0, 0, 2)
	s.mustBeClean()
}

func TestAServersClockThatJumpsAnHourBackEndsNoHoldEarlyAndRevivesNone(t *testing.T) {
	t.Parallel()
	eachClock(t, 5, func(t *testing.T, s *shop, clock *testenv.RedisClock) {
		ended, given, sold := s.promise("ann"), s.promise("bob"), s.promise("cay")
		if _, err := s.store.Cancel(t.Context(), given.ID); err != nil {
			t.Fatal(err)
		}
		s.pay(sold.hold, "cay")
		clock.Set(t, time.Hour)
		until(t, "ann's hold ends", func() bool {
			s.expire()
			return s.state(ended.ID) == stock.Expired
		})
		s.mustHaveEnded(ended)
		late := s.ask("dan")
		late.Deadline = time.Now().Add(30 * time.Minute)
		if err := wants(s.try(late), stock.ErrTooLate); err != nil {
			t.Error(err)
		}
		held := s.promise("eve")

		before := s.contents()
		for _, ahead := range []time.Duration{0, -time.Hour, 0, -time.Hour} {
			clock.Set(t, ahead)
			s.expire()
			s.mustHaveEnded(ended)
			s.mustRepeat(given, stock.Cancelled)
			s.mustRepeat(sold, stock.Sold)
			s.mustRepeat(held, stock.Held)
			s.levels(3, 1, 1)
			s.mustBeClean()
			if after := s.contents(); !maps.Equal(after, before) {
				t.Errorf("something was written %v ahead: it was %q and is %q", ahead, before, after)
			}
		}

		// An hour behind, the sale goes on. Who was refused as too late had
		// taken nothing, and may take one unit now that the deadline is ahead.
		s.pay(held.hold, "eve")
		fay := s.promise("fay")
		s.pay(fay.hold, "fay")
		hold, err := s.store.Reserve(t.Context(), late)
		if err != nil {
			t.Fatal(err)
		}
		dan := promise{late, hold}
		s.mustRepeat(dan, stock.Held)
		s.levels(1, 1, 3)
		s.mustBeClean()

		// By a clock that is right again it is past the time it was promised till.
		clock.Set(t, 0)
		gus, hal := s.take("gus"), s.take("hal")
		s.mustHaveEnded(dan)
		if err := wants(s.try(s.ask("ivy")), stock.ErrAllHeld); err != nil {
			t.Error(err)
		}
		s.pay(gus, "gus")
		s.pay(hal, "hal")
		if err := wants(s.try(s.ask("ivy")), stock.ErrSoldOut); err != nil {
			t.Error(err)
		}
		s.mustHaveEnded(ended)
		s.levels(0, 0, 5)
		s.mustBeClean()
		s.hasHappened(map[stock.ID][]stock.EventKind{
			ended.ID: s.ended(), dan.ID: s.ended(), given.ID: {stock.EventReserved, stock.EventCancelled},
			sold.ID: paid, held.ID: paid, fay.ID: paid, gus.ID: paid, hal.ID: paid,
		})
	})
}

func TestAnAuditOfAServerWhoseClockIsAheadFindsTheEndOfAnUndecidedHold(t *testing.T) {
	t.Parallel()
	eachClock(t, 2, func(t *testing.T, s *shop, clock *testenv.RedisClock) {
		s.promise("ann")
		s.promise("ann")
		clock.Set(t, 3*time.Hour)
		due := s.keys()[1]
		members, err := s.client.ZRange(t.Context(), due, 0, 1).Result()
		if err != nil || len(members) != 2 {
			t.Fatalf("got %q, %v", members, err)
		}
		// As a sweep leaves them that the ledger gave no answer.
		soon := float64(time.Now().Add(3*time.Hour + time.Minute).UnixMilli())
		for _, member := range members {
			if err := s.client.ZAdd(t.Context(), due, redis.Z{Score: soon, Member: member}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		s.edit("t", `^(1,.,1,0,.),0,`, "$1,1,") // which makes ann a suspect
		s.found(s.audit(), stock.FaultLimit)
	})
}
