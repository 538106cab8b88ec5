package coalesce_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/firstcome/firstcome/internal/coalesce"
)

// sky is a server whose trips take as long as it is told, and what it saw.
type sky struct {
	mu    sync.Mutex
	trip  func(n int) time.Duration // of the n-th flight, from 0
	sizes []int
	air   int
	most  int
}

func (s *sky) fly(_ context.Context, batch []*call) {
	s.mu.Lock()
	n := len(s.sizes)
	s.sizes = append(s.sizes, len(batch))
	s.air++
	s.most = max(s.most, s.air)
	took := s.trip(n)
	s.mu.Unlock()
	time.Sleep(took)
	s.mu.Lock()
	s.air--
	s.mu.Unlock()
	for _, c := range batch {
		c.R = 2 * c.Q
	}
}

// flights forgets what was seen and returns the most flights that were in the
// air at once while f ran.
func (s *sky) flights(f func()) int {
	s.mu.Lock()
	s.most, s.sizes = 0, nil
	s.mu.Unlock()
	f()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

func always(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// one is a call that must succeed.
func one(t *testing.T, b *coalesce.Batcher[int, int], q int) {
	t.Helper()
	if r, err := b.Do(t.Context(), q); r != 2*q || err != nil {
		t.Errorf("call %d: got %d, %v", q, r, err)
	}
}

// crowd is n callers that arrive one after the other, and wait for all.
func crowd(t *testing.T, b *coalesce.Batcher[int, int], n int) {
	t.Helper()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { one(t, b, i) })
		synctest.Wait()
	}
	all.Wait()
}

// over is a way that others may share.
func over(link *coalesce.Link) func() *coalesce.Link { return func() *coalesce.Link { return link } }

func TestNearOneFlightIsOutAndFartherEight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{trip: always(200 * time.Microsecond)}
		b := coalesce.New(s.fly, &coalesce.Options{Link: over(coalesce.NewLink(40, nil)), MaxBatch: 4})
		for range 20 {
			one(t, b, 1)
		}
		if n := s.flights(func() { crowd(t, b, 30) }); n != 1 {
			t.Errorf("near: %d flights at once, want 1", n)
		}
		s.trip = always(5 * time.Millisecond) // the server moves away
		for range 64 {
			one(t, b, 1)
		}
		if n := s.flights(func() { crowd(t, b, 30) }); n != 8 {
			t.Errorf("far: %d flights at once, want 8", n)
		}
		s.trip = always(200 * time.Microsecond) // and comes back
		for range 20 {
			one(t, b, 1)
		}
		if n := s.flights(func() { crowd(t, b, 30) }); n != 1 {
			t.Errorf("near again: %d flights at once, want 1", n)
		}
	})
}

func TestLargeBatchesOnANearServerDoNotMakeItFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{trip: always(100 * time.Microsecond)}
		b := coalesce.New(s.fly, nil)
		for range 20 {
			one(t, b, 1)
		}
		s.trip = always(600 * time.Microsecond) // 100 calls are as much work
		for range 36 {                          // more flights than count for the distance
			if n := s.flights(func() { crowd(t, b, 101) }); n != 1 {
				t.Fatalf("%d flights at once, want 1", n)
			}
		}
	})
}

func TestWhatOneBatcherHasLearntAnotherOnTheSameWayKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		link, s := coalesce.NewLink(40, nil), &sky{trip: always(5 * time.Millisecond)}
		first := coalesce.New(s.fly, &coalesce.Options{Link: over(link)})
		for range 4 {
			one(t, first, 1)
		}
		b := coalesce.New(s.fly, &coalesce.Options{Link: over(link)})
		if n := s.flights(func() { crowd(t, b, 20) }); n != 8 {
			t.Errorf("%d flights at once, want 8", n)
		}
	})
}

func TestUnorderedCallsUseSeveralFlightsFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{trip: always(5 * time.Millisecond)}
		for unordered, want := range map[bool]int{true: 8, false: 1} {
			b := coalesce.New(s.fly, &coalesce.Options{Link: over(coalesce.NewLink(40, nil)), Unordered: unordered})
			if n := s.flights(func() { crowd(t, b, 20) }); n < want || !unordered && n > 1 {
				t.Errorf("unordered %v: %d flights at once, of %v", unordered, n, s.sizes)
			}
		}
	})
}

func TestAStalledFlightHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{trip: always(100 * time.Microsecond)}
		b := coalesce.New(s.fly, &coalesce.Options{Link: over(coalesce.NewLink(20, nil))})
		for range 20 {
			one(t, b, 1)
		}
		s.trip = func(n int) time.Duration {
			if n < 10 { // as many dead connections
				return time.Second
			}
			return 100 * time.Microsecond
		}
		s.sizes = nil
		var all sync.WaitGroup
		begun := time.Now()
		for i := range 10 { // each finds another one
			all.Go(func() { one(t, b, i) })
			time.Sleep(16 * time.Millisecond)
		}
		one(t, b, 11)
		if took := time.Since(begun); took > 250*time.Millisecond {
			t.Errorf("ten dead connections held up the others for %v", took)
		}
		all.Wait()
	})
}

func TestStalledFlightsTakeHalfOfTheConnectionsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{trip: always(time.Second)}
		link := coalesce.NewLink(12, nil)
		batchers := []*coalesce.Batcher[int, int]{
			coalesce.New(s.fly, &coalesce.Options{Link: over(link), MaxBatch: 1, Flights: 1}),
			coalesce.New(s.fly, &coalesce.Options{Link: over(link), MaxBatch: 1, Flights: 1}),
		}
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() { one(t, batchers[i%2], i) })
		}
		time.Sleep(900 * time.Millisecond)
		s.mu.Lock()
		if s.air != 6+2 {
			t.Errorf("%d flights are out, want 6 that have stalled and one more of each batcher", s.air)
		}
		s.trip = always(0)
		s.mu.Unlock()
		all.Wait()
		one(t, batchers[0], 1) // all places were given back
		if n := s.flights(func() { s.trip = always(time.Second); crowd(t, batchers[0], 7) }); n != 7 {
			t.Errorf("%d flights at once after that, want 7", n)
		}
	})
}

func TestASlowServerIsNoStalledOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{trip: always(50 * time.Millisecond)}
		b := coalesce.New(s.fly, &coalesce.Options{Link: over(coalesce.NewLink(40, nil)), Flights: 1})
		for range 20 {
			one(t, b, 1)
		}
		s.trip = always(150 * time.Millisecond) // under four times the median
		if n := s.flights(func() { crowd(t, b, 10) }); n != 1 {
			t.Errorf("%d flights at once, want 1", n)
		}
	})
}

func TestAFlightLastsAsLongAsItsMostPatientCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limits []time.Duration
		b := coalesce.New(func(ctx context.Context, batch []*call) {
			deadline, _ := ctx.Deadline()
			limits = append(limits, time.Until(deadline))
			time.Sleep(9 * time.Millisecond)
		}, &coalesce.Options{Timeout: 2 * time.Second, Link: narrow()})
		do := func(timeout time.Duration) {
			ctx := t.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			_, _ = b.Do(ctx, 1)
		}
		for _, c := range []struct {
			callers []time.Duration
			want    time.Duration
		}{
			{[]time.Duration{20 * time.Millisecond}, 20 * time.Millisecond},
			{[]time.Duration{20 * time.Millisecond, time.Second, 30 * time.Millisecond}, time.Second},
			{[]time.Duration{20 * time.Millisecond, 0}, 2 * time.Second},
			{[]time.Duration{time.Minute}, 2 * time.Second},
		} {
			limits = nil
			var all sync.WaitGroup
			all.Go(func() { do(0) }) // the others wait behind it
			synctest.Wait()
			for _, timeout := range c.callers {
				all.Go(func() { do(timeout) })
			}
			all.Wait()
			if got := limits[1]; got > c.want || got < c.want-10*time.Millisecond {
				t.Errorf("callers with %v: the flight has %v, want %v", c.callers, got, c.want)
			}
		}
	})
}

func TestAFlightThatDoesNotObeyLeavesItsCallersAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := coalesce.New(func(_ context.Context, batch []*call) {
			time.Sleep(time.Hour)
			batch[0].R = 7 // nobody reads it
		}, &coalesce.Options{Timeout: time.Second})
		begun := time.Now()
		_, err := b.Do(t.Context(), 1)
		if took := time.Since(begun); !errors.Is(err, coalesce.ErrInFlight) || !errors.Is(err, context.DeadlineExceeded) || took > 1010*time.Millisecond {
			t.Errorf("got %v after %v, want in flight after 1s", err, took)
		}
		time.Sleep(time.Hour) // the flight comes back, and the bubble has no more goroutines
	})
}

func TestAClosedWaySendsNothingAndKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var closed error
		gate := func() error { mu.Lock(); defer mu.Unlock(); return closed }
		why := errors.New("away")
		s := &sky{trip: always(time.Minute)}
		b := coalesce.New(s.fly, &coalesce.Options{Timeout: time.Hour, Link: over(coalesce.NewLink(1, gate))})
		var all sync.WaitGroup
		all.Go(func() { one(t, b, 1) })
		synctest.Wait()
		all.Go(func() {
			begun := time.Now()
			_, err := b.Do(t.Context(), 2)
			if took := time.Since(begun); !errors.Is(err, coalesce.ErrNotSent) || !errors.Is(err, why) || took > 1100*time.Millisecond {
				t.Errorf("who waited: %v after %v", err, took)
			}
		})
		time.Sleep(time.Second)
		mu.Lock()
		closed = why
		mu.Unlock()
		if _, err := b.Do(t.Context(), 3); !errors.Is(err, coalesce.ErrNotSent) || !errors.Is(err, why) {
			t.Errorf("who came: %v", err)
		}
		all.Wait()
		if len(s.sizes) != 1 {
			t.Errorf("%d flights left, want 1", len(s.sizes))
		}
	})
}

type listener func()

func (l listener) Silent() { l() }

func TestATryEndsAtItsTimeAndIsSuspectedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan time.Duration, 10)
		b := coalesce.New(func(ctx context.Context, _ []*call) {
			begun := time.Now()
			for range 2 {
				try, ok := coalesce.Try(ctx, time.Second, 400*time.Millisecond, listener(func() { told <- time.Since(begun) }))
				if !ok {
					t.Error("the context is no flight's")
				}
				<-try.Done()
				if try.Err() == nil {
					t.Error("its time is not over")
				}
				coalesce.Finish(ctx)
			}
		}, &coalesce.Options{Timeout: 1500 * time.Millisecond})
		begun := time.Now()
		_, _ = b.Do(t.Context(), 1)
		if took := time.Since(begun); took > 1510*time.Millisecond {
			t.Errorf("two tries took %v, want the flight's 1.5s", took)
		}
		synctest.Wait()
		if len(told) != 2 {
			t.Fatalf("it was told %d times, want once of each try", len(told))
		}
		if first, second := <-told, <-told; first > 410*time.Millisecond || second > 1420*time.Millisecond {
			t.Errorf("it was told after %v and %v", first, second)
		}
	})
}

func TestEveryCallGetsItsOwnAnswerWhateverFlightsDo(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		trips := rapid.SliceOfN(rapid.SampledFrom([]time.Duration{
			0, 100 * time.Microsecond, 2 * time.Millisecond, 40 * time.Millisecond, 3 * time.Second,
		}), 1, 20).Draw(r, "trips")
		patience := rapid.SliceOfN(rapid.SampledFrom([]time.Duration{
			time.Millisecond, 30 * time.Millisecond, time.Second, time.Hour,
		}), 1, 60).Draw(r, "patience")
		opts := &coalesce.Options{
			MaxBatch: rapid.IntRange(1, 5).Draw(r, "batch"), Flights: rapid.IntRange(0, 3).Draw(r, "flights"),
			Unordered: rapid.Bool().Draw(r, "unordered"), Timeout: 2 * time.Second,
			Link: over(coalesce.NewLink(rapid.IntRange(1, 8).Draw(r, "connections"), nil)),
		}
		synctest.Test(t, func(t *testing.T) {
			s := &sky{trip: func(n int) time.Duration { return trips[n%len(trips)] }}
			var mu sync.Mutex
			var sent []int
			b := coalesce.New(func(ctx context.Context, batch []*call) {
				mu.Lock()
				for _, c := range batch {
					sent = append(sent, c.Q)
				}
				mu.Unlock()
				s.fly(ctx, batch)
			}, opts)
			var all sync.WaitGroup
			for i, d := range patience {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), d)
					defer cancel()
					got, err := b.Do(ctx, i)
					mu.Lock()
					left := slices.Contains(sent, i)
					mu.Unlock()
					switch {
					case err == nil && got == 2*i && left:
					case errors.Is(err, coalesce.ErrNotSent) && !left:
					case errors.Is(err, coalesce.ErrInFlight) && left:
					default:
						t.Errorf("call %d: got %d, %v; it was sent: %v", i, got, err, left)
					}
				})
				if i%3 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			all.Wait()
			time.Sleep(time.Hour) // all flights are back
			if waiting, busy := b.Load(); waiting != 0 || busy != 0 {
				t.Errorf("%d wait and %d are busy at the end", waiting, busy)
			}
			slices.Sort(sent)
			if len(slices.Compact(sent)) != len(sent) {
				t.Error("a call was sent twice")
			}
		})
	})
}
