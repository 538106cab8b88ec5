package redisstock_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// clocked opens a pool on a miniredis whose clock the test moves.
func clocked(t testing.TB, opts *redisstock.Options, edit func(p *stock.Pool)) (*stand, *clock) {
	t.Helper()
	c := newClock(t)
	client := redis.NewClient(&redis.Options{Addr: c.server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return newStand(t, mustStore(t, client, nil, opts), client, edit), c
}

func TestRunFreesHoldsAtTheirTimeThoughNobodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := testenv.Bubble(t)
		s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Hold = time.Minute })
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() {
			if err := s.store.Run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		held := s.hold("ann").ID
		kept := s.hold("bob").ID
		if _, err := s.store.Confirm(t.Context(), kept); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second) // in the bubble's time
		s.levels(8, 1, 1)
		time.Sleep(time.Second + 10*time.Millisecond)
		synctest.Wait()
		s.levels(9, 0, 1)
		events := s.events()
		inOrder(t, 1, events)
		if last := events[len(events)-1]; len(events) != 4 || last.Kind != stock.EventExpired || last.ID != held {
			t.Errorf("events are %+v", events)
		}
		stop()
		run.Wait()
	})
}

func TestManyHoldsThatEndTogetherAreFreedInBoundedSteps(t *testing.T) {
	t.Parallel()
	const holds, batch = 10_000, 256
	client := testenv.NewRedis(t).Client(t)
	store := mustStore(t, client, nil, &redisstock.Options{MaxBatch: batch})
	s := newStand(t, store, client, func(p *stock.Pool) { p.Total, p.Hold = holds, 4*time.Second })
	var first atomic.Int64
	crowd(500, func(i int) {
		for range holds / 500 {
			if _, err := store.Reserve(t.Context(), s.ask(name(i))); err == nil {
				first.Add(1)
			}
		}
	})
	s.drain()
	if first.Load() != holds {
		t.Skipf("the machine is too slow: %d holds stand before the first ends", first.Load())
	}
	awaitServer(t, client, 4*time.Second)
	var taken atomic.Int64
	crowd(100, func(i int) { // buyers go on while the others' time ends
		for range 20 {
			switch _, err := store.Reserve(t.Context(), s.ask(name(i))); {
			case err == nil:
				taken.Add(1)
			case !errors.Is(err, stock.ErrAllHeld):
				t.Errorf("got %v", err)
			}
		}
	})
	if taken.Load() != 2000 {
		t.Errorf("%d units were taken over, want 2000", taken.Load())
	}
	until(t, "all have ended", func() bool {
		if err := redisstock.SweepOnce(t.Context(), store, s.pool.SKU); err != nil {
			t.Fatal(err)
		}
		l, err := store.Levels(t.Context(), s.pool.SKU)
		return err == nil && l.Held <= taken.Load()
	})
	expired, most := 0, 0
	for _, entry := range s.drain() {
		ended := 0
		for _, e := range entry.Events {
			if e.Kind == stock.EventExpired {
				ended++
			}
		}
		expired, most = expired+ended, max(most, ended)
	}
	if expired < holds || most > redisstock.SweepIDs+batch {
		t.Errorf("%d ended, at most %d in one step; want %d and %d", expired, most, holds, redisstock.SweepIDs+batch)
	}
}

// drain takes all entries out of the journal.
func (s *stand) drain() (all []stock.JournalEntry) {
	s.t.Helper()
	for {
		entries, err := s.store.ReadJournal(s.t.Context(), s.pool.SKU, 1000)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(entries) == 0 {
			return all
		}
		all = append(all, entries...)
		if err := s.store.TrimJournal(s.t.Context(), s.pool.SKU, positions(entries)...); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestTheClockOfTheProcessDoesNotMatter(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"an hour ahead": time.Hour, "an hour behind": -time.Hour, "years behind": -20 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClock(t)
			c.now = time.Now().Add(-skew).Truncate(time.Millisecond)
			c.server.SetTime(c.now)
			client := redis.NewClient(&redis.Options{Addr: c.server.Addr()})
			t.Cleanup(func() { _ = client.Close() })
			s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Total, p.Hold = 1, 10*time.Minute })
			hold := s.hold("ann")
			if want := c.now.Add(10 * time.Minute); !hold.Expires.Equal(want) {
				t.Fatalf("held until %v, want %v", hold.Expires, want)
			}
			c.pass(10*time.Minute - time.Millisecond)
			var held *stock.AllHeldError
			if _, err := s.store.Reserve(t.Context(), s.ask("bob")); !errors.As(err, &held) || held.RetryAfter != time.Millisecond {
				t.Fatalf("got %v, want all held for 1ms", err)
			}
			c.pass(time.Millisecond)
			s.hold("bob")
			s.levels(0, 1, 0)
		})
	}
}

func TestTwoProcessesThatSweepFreeEachHoldOnce(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, nil, func(p *stock.Pool) { p.Total = 400 })
	crowd(400, func(i int) { s.hold(name(i)) })
	c.pass(time.Hour)
	other := mustStore(t, s.client, nil, nil)
	crowd(8, func(i int) {
		store := s.store
		if i%2 == 1 {
			store = other
		}
		if err := redisstock.SweepOnce(t.Context(), store, s.pool.SKU); err != nil {
			t.Errorf("sweep: %v", err)
		}
	})
	s.levels(400, 0, 0)
	events := s.events()
	inOrder(t, 1, events)
	if len(events) != 800 {
		t.Errorf("%d events, want 800", len(events))
	}
}

func TestABuyerTakesOverItsOwnEndedHoldThoughTheIndexIsLost(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, nil, func(p *stock.Pool) { p.Total, p.Limit = 5, 2 })
	old := s.ask("ann")
	old.Quantity = 2
	if _, err := s.store.Reserve(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	s.client.Del(t.Context(), s.keys()[1])
	c.pass(time.Hour)
	s.hold("ann")
	s.levels(4, 1, 0)
	if hold, err := s.store.Reserve(t.Context(), old); err != nil || hold.State != stock.Expired || !hold.Repeated {
		t.Errorf("got %+v, %v", hold, err)
	}
}

func TestAnEndedIDIsForgottenAfterTheRetentionAndThenTooOld(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, &redisstock.Options{Retention: time.Hour, MaxRecords: 3}, nil)
	old := s.ask("ann")
	old.Born = c.now
	for range 3 {
		hold, err := s.store.Reserve(t.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.Cancel(t.Context(), hold.ID); err != nil {
			t.Fatal(err)
		}
		old.ID = s.ask("ann").ID
	}
	if _, err := s.store.Reserve(t.Context(), s.ask("ann")); !errors.Is(err, stock.ErrTooManyAttempts) {
		t.Fatalf("got %v, want too many attempts", err)
	}
	c.pass(time.Hour + time.Millisecond)
	if _, err := s.store.Reserve(t.Context(), old); !errors.Is(err, stock.ErrTooLate) {
		t.Fatalf("got %v, want too late", err)
	}
	s.hold("ann") // a fresh attempt finds the old ones gone
	buyer := old.ID.BuyerPart()
	if kept := s.client.HGet(t.Context(), s.keys()[0], string(buyer[:])).Val(); len(kept) > 40 {
		t.Errorf("the ended attempts still stand: %q", kept)
	}
}

func TestARefusalIsForgottenAtOnceByTheProcessThatFreesAUnit(t *testing.T) {
	t.Parallel()
	s, _ := clocked(t, &redisstock.Options{Memory: time.Hour}, func(p *stock.Pool) { p.Total = 1 })
	for range 30 {
		winner := s.hold("ann").ID
		var others sync.WaitGroup
		for i := range 8 {
			others.Go(func() {
				r := s.ask(name(i))
				r.First = true
				if _, err := s.store.Reserve(t.Context(), r); err == nil {
					_, _ = s.store.Cancel(t.Context(), r.ID)
				}
			})
		}
		if _, err := s.store.Cancel(t.Context(), winner); err != nil {
			t.Fatal(err)
		}
		others.Wait()
		r := s.ask("bob")
		r.First = true
		if _, err := s.store.Reserve(t.Context(), r); err != nil {
			t.Fatalf("a unit is free and the answer is %v", err)
		}
		if _, err := s.store.Cancel(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAClockOfTheServerThatJumpsGivesNoUnitTwice(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, nil, func(p *stock.Pool) { p.Total = 2 })
	one := s.hold("ann").ID
	s.hold("bob")
	c.pass(2 * time.Hour) // forwards: both have ended too early
	if hold, err := s.store.Confirm(t.Context(), one); !errors.Is(err, stock.ErrExpired) {
		t.Errorf("got %+v, %v", hold, err)
	}
	s.hold("cay")
	s.hold("dan")
	s.levels(0, 2, 0)
	c.pass(-5 * time.Hour) // backwards: they last longer
	if err := wants(s.try(s.ask("eve")), stock.ErrAllHeld); err != nil {
		t.Error(err)
	}
	s.levels(0, 2, 0)
	c.pass(7 * time.Hour)
	s.hold("eve")
	s.levels(1, 1, 0)
	inOrder(t, 1, s.events())
	s.found(s.audit())
}
