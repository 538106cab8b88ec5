package redisstock_test

import (
	"context"
	"errors"
	"testing"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// awake waits until the store sends calls again, to a server that was away.
func (s *stand) awake() {
	s.t.Helper()
	until(s.t, "redis is found back", func() bool {
		_, err := s.store.Levels(s.t.Context(), s.pool.SKU)
		return !errors.Is(err, stock.ErrBusy)
	})
}

// fenced returns an error unless every call of the pool is refused as fenced.
func (s *stand) fenced(id stock.ID) error {
	s.awake()
	if hold, err := s.store.Reserve(s.t.Context(), s.ask("newcomer")); !errors.Is(err, stock.ErrFenced) {
		return errorf("reserve: got %+v, %w; want fenced", hold, err)
	}
	for name, step := range map[string]func(context.Context, stock.ID) (stock.Hold, error){
		"confirm": s.confirm, "cancel": s.store.Cancel, "return": s.store.Return, "lookup": s.store.Lookup,
	} {
		if hold, err := step(s.t.Context(), id); !errors.Is(err, stock.ErrFenced) {
			return errorf("%s: got %+v, %w; want fenced", name, hold, err)
		}
	}
	if l, err := s.store.Levels(s.t.Context(), s.pool.SKU); !errors.Is(err, stock.ErrFenced) {
		return errorf("levels: got %+v, %w; want fenced", l, err)
	}
	return nil
}

func (s *stand) mustBeFenced(id stock.ID) {
	s.t.Helper()
	if err := s.fenced(id); err != nil {
		s.t.Error(err)
	}
}

func TestAServerThatComesBackEmptyIsFencedAndSellsNothing(t *testing.T) {
	t.Parallel()
	for name, ledger := range map[string]func(t *testing.T) stock.Ledger{
		"without a ledger": func(*testing.T) stock.Ledger { return nil },
		"with a ledger":    func(t *testing.T) stock.Ledger { return newLedger(t, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewRedis(t)
			client := server.Client(t)
			s := newStand(t, mustStore(t, client, ledger(t), nil), client, nil)
			id := s.hold("ann").ID
			server.RestartEmpty()
			s.mustBeFenced(id)
			if n := client.DBSize(t.Context()).Val(); n != 0 {
				t.Errorf("%d keys were written to the empty server", n)
			}
		})
	}
}

func TestWhoNeverMetThePoolIsToldThatAnEmptyServerDoesNotKnowIt(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	client := server.Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	server.RestartEmpty()
	s.store = mustStore(t, client, nil, nil)
	if _, err := s.store.Reserve(t.Context(), s.ask("ann")); !errors.Is(err, stock.ErrUnknownSKU) {
		t.Errorf("got %v", err)
	}
}

func TestAPoolOpenedAnewByAnotherProcessIsFencedForWhoKnewTheOld(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	client := server.Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	id := s.hold("ann").ID
	server.RestartEmpty()
	other := mustStore(t, client, nil, nil)
	if _, err := other.Open(t.Context(), s.pool); err != nil {
		t.Fatal(err)
	}
	s.mustBeFenced(id)
	if l, err := other.Levels(t.Context(), s.pool.SKU); err != nil || l.Free != 10 {
		t.Errorf("got %+v, %v", l, err)
	}
}

func TestAServerThatLostItsLastWritesIsFencedByWhoSawThem(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	s.hold("ann")
	early := s.state()
	id := s.hold("bob").ID
	s.set(early) // as a snapshot, an older append-only file or a stale replica has it
	before := s.contents()
	s.mustBeFenced(id)
	for key, dump := range s.contents() {
		if before[key] != dump {
			t.Errorf("%s was written to", key)
		}
	}
}

func TestAPoolWithoutItsMetaIsClosedAndNeverCountsAsNewOrUnlimited(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	id := s.hold("ann").ID
	if err := client.Del(t.Context(), s.keys()[0]).Err(); err != nil {
		t.Fatal(err)
	}
	before := s.contents()
	s.mustBeFenced(id)
	s.store = mustStore(t, client, nil, nil) // a process that has just started
	if _, err := s.store.Reserve(t.Context(), s.ask("bob")); !errors.Is(err, stock.ErrUnknownSKU) {
		t.Errorf("reserve: %v", err)
	}
	if l, err := s.store.Open(t.Context(), s.pool); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("open beside promised units: got %+v, %v", l, err)
	}
	for key, dump := range s.contents() {
		if before[key] != dump {
			t.Errorf("%s was written to", key)
		}
	}
}

func TestAPoolOfAnUnknownFormatIsRefusedClearly(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	id := s.hold("ann").ID
	s.edit("t", `^1`, "2")
	before := s.contents()
	_, errReserve := s.store.Reserve(t.Context(), s.ask("bob"))
	_, errConfirm := s.store.Confirm(t.Context(), id)
	_, errLevels := s.store.Levels(t.Context(), s.pool.SKU)
	_, errOpen := s.store.Open(t.Context(), s.pool)
	for name, err := range map[string]error{"reserve": errReserve, "confirm": errConfirm, "levels": errLevels, "open": errOpen} {
		if err == nil || !contains(err, "version 2") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for key, dump := range s.contents() {
		if before[key] != dump {
			t.Errorf("%s was written to", key)
		}
	}
}

func TestAStoreThatDisagreesAboutTheLedgerIsRefused(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, newLedger(t, nil), nil), client, nil)
	s.hold("ann")
	s.store = mustStore(t, client, nil, nil)
	if hold, err := s.store.Reserve(t.Context(), s.ask("bob")); err == nil || !contains(err, "ledger") {
		t.Errorf("got %+v, %v", hold, err)
	}
}

func TestTwoFlightsAtOnceDoNotFenceThePool(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, &redisstock.Options{Flights: 4, MaxBatch: 8}), client, func(p *stock.Pool) { p.Total = 2000 })
	crowd(200, func(i int) {
		for range 5 {
			if _, err := s.store.Reserve(t.Context(), s.ask(name(i))); err != nil {
				t.Errorf("got %v", err)
			}
		}
	})
	s.levels(1000, 1000, 0)
}
