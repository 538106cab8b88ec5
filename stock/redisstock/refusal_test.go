package redisstock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// delay is how late a late reply is: long enough for some calls meanwhile, and
// shorter than any try of a client lasts.
const delay = 400 * time.Millisecond

// losers is a pool of one unit that ann holds, a process whose replies may be
// late, and another that this one does not hear of.
type losers struct {
	*stand
	dialer *faulty.Dialer
	server *testenv.RedisServer
	other  *redisstock.Store
	ann    stock.ID
}

func newLosers(t *testing.T, memory time.Duration) *losers {
	t.Helper()
	l := &losers{server: testenv.NewRedis(t)}
	l.stand, l.dialer = onServer(t, l.server, &redisstock.Options{Memory: memory, Flights: 8}, withoutRetries)
	l.stand = newStand(t, l.store, l.client, func(p *stock.Pool) { p.SKU, p.Total = p.SKU+" one", 1 })
	l.other = mustStore(t, l.client, nil, nil)
	l.elsewhere(l.hold("zoe").ID) // the server knows the scripts then
	l.ann = l.hold("ann").ID
	return l
}

// first asks for a buyer for the first time, who may hear a refusal from memory.
func (l *losers) first(buyer string) error {
	r := l.ask(buyer)
	r.First = true
	return l.try(r)
}

// elsewhere cancels a hold in the other process.
func (l *losers) elsewhere(id stock.ID) {
	l.t.Helper()
	if _, err := l.other.Cancel(l.t.Context(), id); err != nil {
		l.t.Fatal(err)
	}
}

// late lets bob be refused by an answer that comes so much later, and meanwhile
// do something once the server has refused him.
func (l *losers) late(by time.Duration, meanwhile func()) {
	l.t.Helper()
	before := l.scriptCalls()
	l.dialer.DelayReply(1, by, isScript)
	var bob sync.WaitGroup
	bob.Go(func() {
		if err := wants(l.try(l.ask("bob")), stock.ErrAllHeld); err != nil {
			l.t.Error(err)
		}
	})
	until(l.t, "the server has refused", func() bool { return l.scriptCalls() > before })
	meanwhile()
	bob.Wait()
}

func (l *losers) want(errs ...error) {
	l.t.Helper()
	if err := errors.Join(errs...); err != nil {
		l.t.Fatal(err)
	}
}

func TestARefusalIsToldFromMemory(t *testing.T) {
	t.Parallel()
	l := newLosers(t, time.Hour)
	l.want(wants(l.first("bob"), stock.ErrAllHeld))
	l.elsewhere(l.ann)
	before := l.scriptCalls()
	l.want(wants(l.first("dan"), stock.ErrAllHeld)) // which the tests below take for granted
	if n := l.scriptCalls() - before; n != 0 {
		t.Errorf("%d scripts ran", n)
	}
}

func TestARefusalLastsFromWhenItsFlightLeft(t *testing.T) {
	t.Parallel()
	const memory = delay
	l := newLosers(t, memory)
	l.late(memory, func() { l.elsewhere(l.ann) })
	l.want(l.first("dan"))
}

func TestARefusalThatLandsAfterALaterHoldIsNotRemembered(t *testing.T) {
	t.Parallel()
	l := newLosers(t, time.Hour)
	l.late(delay, func() {
		l.elsewhere(l.ann)
		l.elsewhere(l.hold("cay").ID)
	})
	l.want(l.first("dan"))
}

func TestALaterHoldVoidsARefusalThatStands(t *testing.T) {
	t.Parallel()
	l := newLosers(t, time.Hour)
	l.want(wants(l.first("bob"), stock.ErrAllHeld))
	l.elsewhere(l.ann)
	l.elsewhere(l.hold("cay").ID) // a retry asks, whatever is remembered
	l.want(l.first("dan"))
}

func TestAnEarlierHoldThatLandsLateVoidsNothing(t *testing.T) {
	t.Parallel()
	l := newLosers(t, time.Hour)
	l.elsewhere(l.ann)
	before := l.scriptCalls()
	l.dialer.DelayReply(1, delay, isScript)
	var cay sync.WaitGroup
	cay.Go(func() { l.want(l.try(l.ask("cay"))) })
	until(t, "the server has given the unit", func() bool { return l.scriptCalls() > before })
	l.want(wants(l.first("bob"), stock.ErrAllHeld))
	cay.Wait()
	before = l.scriptCalls()
	l.want(wants(l.first("dan"), stock.ErrAllHeld))
	if n := l.scriptCalls() - before; n != 0 {
		t.Errorf("%d scripts ran: the refusal is forgotten", n)
	}
}

func TestARefusalThatIsVoidReplacesNoneThatStands(t *testing.T) {
	t.Parallel()
	l := newLosers(t, time.Hour)
	l.late(delay, func() {
		if _, err := l.store.Cancel(t.Context(), l.ann); err != nil {
			t.Fatal(err)
		}
		if _, err := l.other.Reserve(t.Context(), l.ask("cay")); err != nil {
			t.Fatal(err)
		}
		l.want(wants(l.first("dan"), stock.ErrAllHeld))
	})
	before := l.scriptCalls()
	l.want(wants(l.first("eve"), stock.ErrAllHeld))
	if n := l.scriptCalls() - before; n != 0 {
		t.Errorf("%d scripts ran: the refusal is forgotten", n)
	}
}

func TestACancelWhoseReplyWasLostVoidsRefusals(t *testing.T) {
	t.Parallel()
	for name, retried := range map[string]bool{"its outcome unknown": false, "and that the caller sends again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLosers(t, time.Hour)
			l.want(wants(l.first("bob"), stock.ErrAllHeld))
			if retried { // as a client does by itself: the answer is that of a repeat
				l.elsewhere(l.ann)
				if hold, err := l.store.Cancel(t.Context(), l.ann); err != nil || !hold.Repeated {
					t.Fatalf("got %+v, %v", hold, err)
				}
			} else {
				lost := l.dialer.CutReply(1, isScript)
				if _, err := l.store.Cancel(t.Context(), l.ann); !errors.Is(err, stock.ErrUnknown) {
					t.Fatal(err)
				}
				lost.MustFire(t)
			}
			l.want(l.first("dan"))
		})
	}
}

func TestAnAdjustmentWhoseReplyWasLostVoidsRefusals(t *testing.T) {
	t.Parallel()
	l := newLosers(t, time.Hour)
	l.want(l.adjust(1, 1), l.adjust(2, -1)) // the server knows the scripts then
	l.want(wants(l.first("bob"), stock.ErrAllHeld))
	lost := l.dialer.CutReply(2, isScript) // the first reads the terms
	if err := l.adjust(3, 1); !errors.Is(err, stock.ErrUnknown) {
		t.Fatal(err)
	}
	lost.MustFire(t)
	l.want(l.first("dan"))
}

func TestARefusalOfAnOlderEpochIsVoid(t *testing.T) {
	t.Parallel()
	ledger := newLedger(t, nil)
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, ledger, &redisstock.Options{Memory: time.Hour}), client, func(p *stock.Pool) { p.Total = 1 })
	s.hold("ann")
	loser := func(name string) error {
		r := s.ask(name)
		r.First = true
		return s.try(r)
	}
	if err := wants(loser("bob"), stock.ErrAllHeld); err != nil {
		t.Fatal(err)
	}
	other := mustStore(t, client, ledger, nil)
	if err := client.Del(t.Context(), s.keys()...).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Rebuild(t.Context(), s.pool.SKU); err != nil { // ann's hold has no order
		t.Fatal(err)
	}
	if _, err := s.store.Levels(t.Context(), s.pool.SKU); err != nil { // the process hears of it
		t.Fatal(err)
	}
	if err := loser("dan"); err != nil {
		t.Error(err)
	}
}

func TestAnOlderReplyDoesNotLowerTheFence(t *testing.T) {
	t.Parallel()
	s, dialer := onServer(t, testenv.NewRedis(t), &redisstock.Options{Flights: 8}, withoutRetries)
	s.hold("zoe") // the server knows the script then
	before := s.scriptCalls()
	dialer.DelayReply(1, delay, isScript)
	var ann sync.WaitGroup
	ann.Go(func() { _ = s.try(s.ask("ann")) })
	until(t, "the server has answered", func() bool { return s.scriptCalls() > before })
	early := s.state()
	id := s.hold("bob").ID
	ann.Wait()
	s.set(early)
	s.mustBeFenced(id)
}

func TestAnIDInManyFlightsAtOnceGetsOneHold(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	for round := range 5 {
		s, dialer := onServer(t, server, &redisstock.Options{Flights: 8, MaxBatch: 1}, withoutRetries)
		s = newStand(t, s.store, s.client, func(p *stock.Pool) { p.SKU = fmt.Sprint(p.SKU, round) })
		for i := range 8 {
			dialer.DelayReply(1+i, time.Duration(8-i)*10*time.Millisecond, isScript)
		}
		r := s.ask("ann")
		var mu sync.Mutex
		fresh := 0
		crowd(8, func(int) {
			hold, err := s.insist(context.WithoutCancel(t.Context()), r)
			if err != nil || hold.ID != r.ID || hold.State != stock.Held {
				t.Errorf("got %+v, %v", hold, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !hold.Repeated {
				fresh++
			}
		})
		if fresh != 1 {
			t.Errorf("%d callers were told that the hold is new", fresh)
		}
		s.levels(9, 1, 0)
	}
}
