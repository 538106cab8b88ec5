package coalesce_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/internal/coalesce"
)

type call = coalesce.Call[int, int]

func double(_ context.Context, batch []*call) {
	for _, c := range batch {
		c.R = 2 * c.Q
	}
}

// narrow is a way on which no flight may stall: there is one connection.
func narrow() func() *coalesce.Link {
	link := coalesce.NewLink(1, nil)
	return func() *coalesce.Link { return link }
}

func TestALoneCallerFliesAtOnce(t *testing.T) {
	b := coalesce.New(double, nil)
	if r, err := b.Do(t.Context(), 21); r != 42 || err != nil {
		t.Fatalf("got %d, %v", r, err)
	}
}

func TestWhoArrivesDuringAFlightRidesTheNextInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var flights [][]int
		b := coalesce.New(func(_ context.Context, batch []*call) {
			var qs []int
			for _, c := range batch {
				qs = append(qs, c.Q)
				c.R = c.Q
			}
			flights = append(flights, qs)
			time.Sleep(time.Second) // the trip, in the bubble's time
		}, &coalesce.Options{MaxBatch: 3, Link: narrow()})
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if r, err := b.Do(t.Context(), i); r != i || err != nil {
					t.Errorf("call %d: got %d, %v", i, r, err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		want := [][]int{{0}, {1, 2, 3}, {4, 5}}
		if len(flights) != len(want) {
			t.Fatalf("flights %v, want %v", flights, want)
		}
		for i := range want {
			for j := range want[i] {
				if flights[i][j] != want[i][j] {
					t.Fatalf("flights %v, want %v", flights, want)
				}
			}
		}
	})
}

func TestACallerWhoLeavesKnowsWhetherItsCallHadLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		b := coalesce.New(func(_ context.Context, batch []*call) {
			sent += len(batch)
			time.Sleep(time.Minute)
		}, &coalesce.Options{Timeout: time.Hour, Link: narrow()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.Do(ctx, 1); !errors.Is(err, coalesce.ErrInFlight) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("flying call: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := b.Do(ctx, 2); !errors.Is(err, coalesce.ErrNotSent) {
				t.Errorf("waiting call: %v", err)
			}
		})
		wg.Wait()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if sent != 1 {
			t.Fatalf("%d calls were sent, want 1: an abandoned call must not fly", sent)
		}
	})
}

func TestAFullQueueIsAnErrorAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := coalesce.New(func(context.Context, []*call) { time.Sleep(time.Minute) }, &coalesce.Options{MaxQueue: 1, Timeout: time.Hour, Link: narrow()})
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() { _, _ = b.Do(t.Context(), i) })
			synctest.Wait()
		}
		before := time.Now()
		if _, err := b.Do(t.Context(), 3); !errors.Is(err, coalesce.ErrFull) {
			t.Fatalf("got %v", err)
		}
		if time.Since(before) != 0 {
			t.Fatal("the refusal waited")
		}
		wg.Wait()
	})
}

func TestCallersWhoLeftMakeRoomInAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := coalesce.New(func(context.Context, []*call) { time.Sleep(time.Minute) }, &coalesce.Options{MaxQueue: 1, Timeout: time.Hour, Link: narrow()})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = b.Do(t.Context(), 0) })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { _, _ = b.Do(ctx, 1) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		wg.Go(func() {
			if _, err := b.Do(t.Context(), 2); err != nil {
				t.Errorf("got %v", err)
			}
		})
		wg.Wait()
	})
}

func TestAPanicInAFlightReachesItsCallersAndTheNextFlightGoes(t *testing.T) {
	first := true
	b := coalesce.New(func(ctx context.Context, batch []*call) {
		if first {
			first = false
			panic("boom")
		}
		double(ctx, batch)
	}, nil)
	if _, err := b.Do(t.Context(), 1); err == nil {
		t.Fatal("no error")
	}
	if r, err := b.Do(t.Context(), 4); r != 8 || err != nil {
		t.Fatalf("got %d, %v", r, err)
	}
}

func TestConcurrentCallersEachGetTheirOwnAnswer(t *testing.T) {
	b := coalesce.New(double, &coalesce.Options{Flights: 2, MaxBatch: 7})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			for j := range 50 {
				if r, err := b.Do(t.Context(), i*1000+j); err != nil || r != 2*(i*1000+j) {
					t.Errorf("got %d, %v", r, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
