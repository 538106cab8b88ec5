package redisstock_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

func TestOfTwoProcessesThatRaceForTheLastUnitOneHoldsItAndTheOtherHearsWhenItEnds(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	s := newStand(t, mustStore(t, server.Client(t), nil, nil), server.Client(t), func(p *stock.Pool) { p.Total, p.Hold = 1, time.Minute })
	stores := []*redisstock.Store{s.store, mustStore(t, server.Client(t), nil, nil)}
	for range 20 {
		var won atomic.Pointer[stock.Hold]
		crowd(2, func(i int) {
			hold, err := stores[i].Reserve(t.Context(), s.ask(name(i)))
			var held *stock.AllHeldError
			switch {
			case err == nil && won.CompareAndSwap(nil, &hold):
			case errors.As(err, &held) && held.RetryAfter > 0 && held.RetryAfter <= time.Minute:
			default:
				t.Errorf("got %+v, %v", hold, err)
			}
		})
		if won.Load() == nil {
			t.Fatal("nobody holds it")
		}
		if _, err := s.store.Cancel(t.Context(), won.Load().ID); err != nil {
			t.Fatal(err)
		}
	}
	s.levels(1, 0, 0)
}

func TestADelayedCopyOfARefusedAttemptMakesNoGhostHoldAfterARestock(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, nil, func(p *stock.Pool) { p.Total = 1 })
	s.hold("ann")
	late := s.ask("bob")
	late.Deadline = c.now.Add(time.Minute)
	if err := wants(s.try(late), stock.ErrAllHeld); err != nil {
		t.Fatal(err)
	}
	if err := s.adjust(1, 5); err != nil {
		t.Fatal(err)
	}
	c.pass(time.Minute)
	if err := wants(s.try(late), stock.ErrTooLate); err != nil {
		t.Error(err)
	}
	s.levels(5, 1, 0)
}

func TestAUnitThatAnotherProcessFreesIsForSaleWithinTheMemorysTime(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	s := newStand(t, mustStore(t, server.Client(t), nil, nil), server.Client(t), func(p *stock.Pool) { p.Total = 1 })
	other := mustStore(t, server.Client(t), nil, nil)
	winner := s.hold("ann").ID
	ask := func() error {
		r := s.ask("bob")
		r.First = true
		_, err := other.Reserve(t.Context(), r)
		return err
	}
	if err := wants(ask(), stock.ErrAllHeld); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Cancel(t.Context(), winner); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	until(t, "the other process sells it", func() bool { return ask() == nil })
	if took := time.Since(begun); took > 2*time.Second { // 100 ms, and a slow machine
		t.Errorf("it took %v", took)
	}
}

// kinds are the events' kinds, in order.
func kinds(events []stock.Event) (list []stock.EventKind) {
	for _, e := range events {
		list = append(list, e.Kind)
	}
	return list
}

func TestTheEventOfAPartTellsWhatWasSoldAndWhatWasGivenBack(t *testing.T) {
	t.Parallel()
	s, _ := clocked(t, nil, func(p *stock.Pool) {
		p.Total, p.Items = 0, []stock.Item{{SKU: "a", Total: 9}, {SKU: "b", Total: 9}}
	})
	r := s.ask("ann")
	r.Quantity, r.Lines = 0, []stock.Line{{SKU: "a", Quantity: 3}, {SKU: "b", Quantity: 1}}
	if err := s.try(r); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Confirm(t.Context(), r.ID, stock.Line{SKU: "a", Quantity: 2}, stock.Line{SKU: "b", Quantity: 1}); err != nil {
		t.Fatal(err)
	}
	events := s.events()
	inOrder(t, 1, events)
	if len(events) != 2 {
		t.Fatalf("events %+v", events)
	}
	e := events[1]
	if e.Kind != stock.EventConfirmed || e.ID != r.ID || e.Quantity != 3 ||
		!slices.Equal(e.Lines, []stock.Line{{SKU: "a", Quantity: 2}, {SKU: "b", Quantity: 1}}) ||
		!slices.Equal(e.Released, []stock.Line{{SKU: "a", Quantity: 1}}) {
		t.Errorf("got %+v", e)
	}
}

func TestALatePaymentThatIsRefusedIsToldToTheJournalOnceForItsRefund(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, nil, nil)
	id := s.hold("ann").ID
	c.pass(time.Hour)
	for range 3 {
		if _, err := s.store.Confirm(t.Context(), id); !errors.Is(err, stock.ErrExpired) {
			t.Fatalf("got %v", err)
		}
	}
	events := s.events()
	inOrder(t, 1, events)
	if got := kinds(events); !slices.Equal(got, []stock.EventKind{stock.EventReserved, stock.EventExpired, stock.EventLate}) {
		t.Errorf("events are %v", got)
	}
}

func TestEachStepOfALifeIsTold(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, nil, func(p *stock.Pool) { p.Late = stock.LateIfFree })
	one, two := s.hold("ann"), s.hold("bob")
	steps := []error{s.adjust(1, 2), s.adjust(2, -3)}
	_, err := s.store.Extend(t.Context(), one.ID, one.Expires.Add(time.Minute))
	steps = append(steps, err)
	c.pass(time.Hour)
	_, err = s.store.Confirm(t.Context(), two.ID)
	steps = append(steps, err)
	_, err = s.store.Return(t.Context(), two.ID)
	steps = append(steps, err)
	_, err = s.store.Cancel(t.Context(), one.ID)
	if err := errors.Join(append(steps, err)...); err != nil {
		t.Fatal(err)
	}
	events := s.events()
	want := []stock.EventKind{
		stock.EventReserved, stock.EventReserved, stock.EventAdded, stock.EventTakenOut, stock.EventExtended,
		stock.EventExpired, stock.EventLateConfirmed, stock.EventReturned, stock.EventCancelled,
	}
	if got := kinds(events); !slices.Equal(got, want) {
		t.Errorf("events are %v, want %v", got, want)
	}
	if added := events[2]; !added.ID.IsZero() || added.Quantity != 2 {
		t.Errorf("got %+v", added)
	}
	s.levels(9, 0, 0)
}

func TestTwoRunsOfOneStoreDoNotMeet(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Hold = short })
	s.hold("ann")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var runs sync.WaitGroup
	for range 2 {
		runs.Go(func() { _ = s.store.Run(ctx) })
	}
	until(t, "the hold has ended", func() bool { return s.counts(10, 0, 0) == nil })
	stop()
	runs.Wait()
}
