package redisstock_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// events reads the whole journal.
func (s *stand) events() (events []stock.Event) {
	s.t.Helper()
	entries, err := s.store.ReadJournal(s.t.Context(), s.pool.SKU, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		events = append(events, e.Events...)
	}
	return events
}

// inOrder fails the test unless the events stand one after the other.
func inOrder(t *testing.T, first int64, events []stock.Event) {
	t.Helper()
	for i, e := range events {
		if e.Seq != first+int64(i) || e.Epoch != events[0].Epoch || e.At.IsZero() || e.ID.IsZero() {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
}

func TestEveryChangeStandsOnceInTheJournalInOrder(t *testing.T) {
	t.Parallel()
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStand(t, mustStore(t, client, nil, nil), client, nil)
		one, two := s.hold("ann"), s.hold("bob")
		for _, step := range []func() (stock.Hold, error){
			func() (stock.Hold, error) { return s.store.Confirm(t.Context(), one.ID) },
			func() (stock.Hold, error) { return s.store.Cancel(t.Context(), two.ID) },
			func() (stock.Hold, error) { return s.store.Return(t.Context(), one.ID) },
		} {
			for range 2 { // a repeat is no change
				if _, err := step(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, _ = s.store.Cancel(t.Context(), s.ask("cay").ID) // nor is a refusal
		events := s.events()
		inOrder(t, 1, events)
		want := []stock.Event{
			{Kind: stock.EventReserved, ID: one.ID}, {Kind: stock.EventReserved, ID: two.ID},
			{Kind: stock.EventConfirmed, ID: one.ID}, {Kind: stock.EventCancelled, ID: two.ID}, {Kind: stock.EventReturned, ID: one.ID},
		}
		if len(events) != len(want) {
			t.Fatalf("%d events, want %d", len(events), len(want))
		}
		for i, e := range events {
			if e.Kind != want[i].Kind || e.ID != want[i].ID || e.Quantity != 1 || e.SKU != s.pool.SKU || e.Epoch != one.Epoch {
				t.Errorf("event %d is %+v, want %+v", i, e, want[i])
			}
		}
	})
}

func TestABatchExpandsToSingleEventsThatExplainTheCounts(t *testing.T) {
	t.Parallel()
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Total, p.Limit = 300, 3 })
		var held sync.Map
		crowd(300, func(i int) {
			r := s.ask(name(i % 100)) // some of a batch are slow and some are fast
			r.Quantity = int64(1 + i%2)
			if hold, err := s.store.Reserve(t.Context(), r); err == nil {
				held.Store(hold.ID, hold.Quantity)
			}
		})
		events := s.events()
		inOrder(t, 1, events)
		var units int64
		for _, e := range events {
			quantity, ok := held.LoadAndDelete(e.ID)
			if !ok || e.Kind != stock.EventReserved || e.Quantity != quantity {
				t.Fatalf("%+v: the store promised %v", e, quantity)
			}
			units += e.Quantity
		}
		held.Range(func(id, _ any) bool { t.Errorf("%v has no event", id); return true })
		s.levels(300-units, units, 0)
	})
}

func TestAnExpiredHoldTellsItsEventOnce(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	client := redis.NewClient(&redis.Options{Addr: c.server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	id := s.hold("ann").ID
	swept, looked := s.hold("bob").ID, id
	c.pass(time.Hour)
	if hold, err := s.store.Lookup(t.Context(), looked); err != nil || hold.State != stock.Expired {
		t.Fatalf("got %+v, %v", hold, err)
	}
	for range 2 {
		if err := redisstock.SweepOnce(t.Context(), s.store, s.pool.SKU); err != nil {
			t.Fatal(err)
		}
	}
	events := s.events()
	inOrder(t, 1, events)
	if len(events) != 4 || events[2].ID != looked || events[3].ID != swept ||
		events[2].Kind != stock.EventExpired || events[3].Kind != stock.EventExpired {
		t.Fatalf("events are %+v", events)
	}
	s.levels(10, 0, 0)
}

func TestTrimmingForgetsExactlyWhatWasNamed(t *testing.T) {
	t.Parallel()
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStand(t, mustStore(t, client, nil, nil), client, nil)
		for i := range 5 {
			s.hold(name(i))
		}
		entries, err := s.store.ReadJournal(t.Context(), s.pool.SKU, 3)
		if err != nil || len(entries) != 3 {
			t.Fatalf("got %d entries, %v", len(entries), err)
		}
		for range 2 {
			if err := s.store.TrimJournal(t.Context(), s.pool.SKU, positions(entries)...); err != nil {
				t.Fatal(err)
			}
			rest := s.events()
			if len(rest) != 2 {
				t.Fatalf("%d events are left, want 2", len(rest))
			}
			inOrder(t, 4, rest)
		}
		all, err := s.store.ReadJournal(t.Context(), s.pool.SKU, 10)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.store.TrimJournal(t.Context(), s.pool.SKU, positions(all)...); err != nil {
			t.Fatal(err)
		}
		if left := s.events(); len(left) != 0 {
			t.Fatalf("left: %+v", left)
		}
		if client.Exists(t.Context(), s.keys()[2]).Val() != 1 {
			t.Error("the empty journal's key is gone")
		}
		s.hold("late")
		inOrder(t, 6, s.events())
		digest := strings.Repeat("0a", 20)
		for _, wrong := range [][]string{
			nil, {""}, {"1-1"}, {digest[2:]}, {digest + "0a"}, {digest[1:]}, {digest[1:] + "x"}, {digest, "-"}, slices.Repeat([]string{digest}, 1001),
		} {
			if err := s.store.TrimJournal(t.Context(), s.pool.SKU, wrong...); !errors.Is(err, stock.ErrInvalid) {
				t.Errorf("%d positions %.100q: got %v", len(wrong), wrong, err)
			}
		}
	})
}

// positions names all of the entries.
func positions(entries []stock.JournalEntry) (list []string) {
	for _, e := range entries {
		list = append(list, e.Position)
	}
	return list
}

// supplant puts another event under the stream ID of the journal's last entry, as
// a server does that has lost it and whose clock is behind.
func (s *stand) supplant() {
	s.t.Helper()
	journal := s.keys()[2]
	list, err := s.client.XRange(s.t.Context(), journal, "-", "+").Result()
	if err != nil || len(list) == 0 {
		s.t.Fatalf("got %d entries, %v", len(list), err)
	}
	list[len(list)-1].Values["e"] = fmt.Sprintf("1,2,1,1;A5,1;%028d", 0)
	s.client.Del(s.t.Context(), journal)
	for _, entry := range list {
		if err := s.client.XAdd(s.t.Context(), &redis.XAddArgs{Stream: journal, ID: entry.ID, Values: entry.Values}).Err(); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestTrimmingLeavesWhatHasTakenThePlaceOfARelayedEntry(t *testing.T) {
	t.Parallel()
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		s := newStand(t, mustStore(t, client, nil, nil), client, nil)
		for i := range 3 {
			s.hold(name(i))
		}
		relayed, err := s.store.ReadJournal(t.Context(), s.pool.SKU, 3)
		if err != nil {
			t.Fatal(err)
		}
		s.supplant()
		for range 2 {
			if err := s.store.TrimJournal(t.Context(), s.pool.SKU, positions(relayed)...); err != nil {
				t.Fatal(err)
			}
			if left := s.events(); len(left) != 1 || left[0].Epoch != 2 || left[0].Seq != 1 {
				t.Errorf("left: %+v; want only the one of epoch 2", left)
			}
		}
	})
}

func TestAFullJournalRefusesReservationsAndStillTakesAllElse(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	client := redis.NewClient(&redis.Options{Addr: c.server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	store, err := redisstock.New(client, nil, redisstock.JournalRelayed(4), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newStand(t, store, client, nil)
	ids := make([]stock.ID, 4)
	requests := make([]stock.Request, 4)
	for i := range ids {
		requests[i] = s.ask(name(i))
		if _, err := store.Reserve(t.Context(), requests[i]); err != nil {
			t.Fatal(err)
		}
		ids[i] = requests[i].ID
	}
	if hold, err := store.Reserve(t.Context(), s.ask("late")); !errors.Is(err, stock.ErrJournalFull) {
		t.Fatalf("got %+v, %v; want journal full", hold, err)
	}
	if hold, err := store.Reserve(t.Context(), requests[0]); err != nil || !hold.Repeated {
		t.Fatalf("a known ID: got %+v, %v", hold, err)
	}
	if _, err := store.Confirm(t.Context(), ids[0]); err != nil {
		t.Error(err)
	}
	if _, err := store.Cancel(t.Context(), ids[1]); err != nil {
		t.Error(err)
	}
	if _, err := store.Return(t.Context(), ids[0]); err != nil {
		t.Error(err)
	}
	c.pass(time.Hour)
	if err := redisstock.SweepOnce(t.Context(), store, s.pool.SKU); err != nil {
		t.Error(err)
	}
	events := s.events()
	inOrder(t, 1, events)
	if len(events) != 9 {
		t.Fatalf("%d events, want 9", len(events))
	}
	entries, err := store.ReadJournal(t.Context(), s.pool.SKU, 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.TrimJournal(t.Context(), s.pool.SKU, positions(entries)...); err != nil {
		t.Fatal(err)
	}
	s.hold("late") // relayed: the sale goes on
}

func TestWithoutAJournalNoEventIsWrittenAndTheCountsAreTheSame(t *testing.T) {
	t.Parallel()
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		store, err := redisstock.New(client, nil, redisstock.JournalOff, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := newStand(t, store, client, nil)
		id := s.hold("ann").ID
		if _, err := store.Confirm(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		s.levels(9, 0, 1)
		if events := s.events(); len(events) != 0 {
			t.Errorf("events: %+v", events)
		}
	})
}

func TestAJournalThatIsNotOursIsRefusedClearly(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	for _, entry := range []string{
		"", "x", "1,2,3", "2,1,1,1;", "1,1,1,1;R", "1,1,1,1;R1,1;short", "1,1,1,1;Z1,1;" + fmt.Sprintf("%028d", 1),
		"1,1,1,1;R1,99999999999;" + fmt.Sprintf("%028d", 1), "1,1,1,1;;", "1,1,1,1;R0,1;" + fmt.Sprintf("%028d", 1), "1,1,1,1;R1,0;", "1,1,1,1;R1,-1;",
	} {
		client.XTrimMaxLen(t.Context(), s.keys()[2], 0)
		client.XAdd(t.Context(), &redis.XAddArgs{Stream: s.keys()[2], Values: []string{"e", entry}})
		if got, err := s.store.ReadJournal(t.Context(), s.pool.SKU, 10); err == nil {
			t.Errorf("%q was read as %+v", entry, got)
		}
	}
}

func TestOneRelayAtATimeHasTheLeaseOfAJournal(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, nil, nil)
	lease := func(relay string, ttl time.Duration, want bool) {
		t.Helper()
		if held, err := s.store.LeaseJournal(t.Context(), s.pool.SKU, relay, ttl); err != nil || held != want {
			t.Fatalf("%s: got %v, %v; want %v", relay, held, err, want)
		}
	}
	lease("one", time.Minute, true)
	lease("two", time.Minute, false)
	lease("two", 0, false) // it has nothing to give back
	lease("one", time.Minute, true)
	c.server.FastForward(time.Minute)
	lease("two", time.Minute, true)
	lease("one", time.Minute, false)
	lease("two", 0, false)
	lease("one", time.Minute, true)
	for _, bad := range []string{"", strings.Repeat("x", 256)} {
		if _, err := s.store.LeaseJournal(t.Context(), s.pool.SKU, bad, time.Minute); !errors.Is(err, stock.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestAServerThatWentBackBehindWhatWasRelayedIsFenced(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	s.hold("ann")
	early := s.state()
	s.hold("bob")
	relay := mustStore(t, client, nil, nil) // a process that only relays
	if entries, err := relay.ReadJournal(t.Context(), s.pool.SKU, 10); err != nil || len(entries) != 2 {
		t.Fatalf("got %+v, %v", entries, err)
	}
	s.set(early)
	if _, err := relay.Levels(t.Context(), s.pool.SKU); !errors.Is(err, stock.ErrFenced) {
		t.Errorf("got %v", err)
	}
}
