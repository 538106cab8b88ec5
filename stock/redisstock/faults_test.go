package redisstock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

var isScript = faulty.Contains("evalsha")

// isFinal tells an answer of the pool from an outcome that is not known.
func isFinal(err error) bool {
	for _, final := range []error{stock.ErrAllHeld, stock.ErrSoldOut, stock.ErrLimit, stock.ErrFenced, stock.ErrInvalid, stock.ErrMismatch} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

func withoutRetries(o *redis.Options) { o.MaxRetries = -1 }

func TestALostReplyNeverTakesTwoUnits(t *testing.T) {
	t.Parallel()
	t.Run("with the retries of go-redis", func(t *testing.T) {
		t.Parallel()
		s, dialer := onServer(t, testenv.Redis(t), nil)
		s.hold("ann") // the script is loaded now
		fault := dialer.CutReply(1, isScript)
		hold, err := s.store.Reserve(t.Context(), s.ask("bob"))
		if err != nil || hold.State != stock.Held || !hold.Repeated {
			t.Fatalf("got %+v, %v; want the hold that the first try made", hold, err)
		}
		fault.MustFire(t)
		s.levels(8, 2, 0)
	})
	t.Run("without them it is unknown and the same ID finds it", func(t *testing.T) {
		t.Parallel()
		s, dialer := onServer(t, testenv.Redis(t), nil, withoutRetries)
		s.hold("ann")
		fault := dialer.CutReply(1, isScript)
		r := s.ask("bob")
		if hold, err := s.store.Reserve(t.Context(), r); !errors.Is(err, stock.ErrUnknown) {
			t.Fatalf("got %+v, %v; want unknown", hold, err)
		}
		fault.MustFire(t)
		s.levels(8, 2, 0)
		if hold, err := s.store.Reserve(t.Context(), r); err != nil || !hold.Repeated {
			t.Fatalf("got %+v, %v; want the same hold", hold, err)
		}
		s.levels(8, 2, 0)
	})
}

func TestALostReplyNeverConfirmsCancelsOrReturnsTwice(t *testing.T) {
	t.Parallel()
	s, dialer := onServer(t, testenv.Redis(t), nil)
	one, two := s.hold("ann").ID, s.hold("bob").ID
	if _, err := s.store.Lookup(t.Context(), one); err != nil { // loads the script
		t.Fatal(err)
	}
	for _, step := range []struct {
		name   string
		do     func(context.Context, stock.ID) (stock.Hold, error)
		id     stock.ID
		state  stock.State
		counts [3]int64
	}{
		{"confirm", s.confirm, one, stock.Sold, [3]int64{8, 1, 1}},
		{"cancel", s.store.Cancel, two, stock.Cancelled, [3]int64{9, 0, 1}},
		{"return", s.store.Return, one, stock.Returned, [3]int64{10, 0, 0}},
	} {
		fault := dialer.CutReply(1, isScript)
		if hold, err := step.do(t.Context(), step.id); err != nil || hold.State != step.state {
			t.Fatalf("%s: got %+v, %v", step.name, hold, err)
		}
		fault.MustFire(t)
		s.levels(step.counts[0], step.counts[1], step.counts[2])
	}
}

func TestALostRequestTakesNothingAndTheSameIDIsFresh(t *testing.T) {
	t.Parallel()
	s, dialer := onServer(t, testenv.Redis(t), nil, withoutRetries)
	s.hold("ann")
	fault := dialer.CutRequest(1, isScript)
	r := s.ask("bob")
	if hold, err := s.store.Reserve(t.Context(), r); !errors.Is(err, stock.ErrUnknown) {
		t.Fatalf("got %+v, %v; want unknown", hold, err)
	}
	fault.MustFire(t)
	s.levels(9, 1, 0)
	if hold, err := s.store.Reserve(t.Context(), r); err != nil || hold.Repeated {
		t.Fatalf("got %+v, %v; want a fresh hold", hold, err)
	}
	s.levels(8, 2, 0)
}

func TestForgottenScriptsLoseNoCallOfACrowd(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	client := server.Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Total = 500 })
	ctx, stop := context.WithCancel(t.Context())
	var flushes atomic.Int64
	var flusher sync.WaitGroup
	flusher.Go(func() {
		for ctx.Err() == nil {
			if client.ScriptFlush(ctx).Err() == nil {
				flushes.Add(1)
			}
		}
	})
	var wins atomic.Int64
	crowd(50, func(i int) {
		for j := range 20 {
			r := s.ask(fmt.Sprintf("buyer-%d-%d", i, j))
			switch hold, err := s.store.Reserve(t.Context(), r); {
			case errors.Is(err, stock.ErrAllHeld), errors.Is(err, stock.ErrSoldOut):
			case err != nil:
				t.Errorf("reserve: %v", err)
			default:
				wins.Add(1)
				if _, err := s.store.Confirm(t.Context(), hold.ID); err != nil {
					t.Errorf("confirm: %v", err)
				}
			}
		}
	})
	stop()
	flusher.Wait()
	if wins.Load() != 500 || flushes.Load() == 0 {
		t.Errorf("%d won, want 500; %d flushes", wins.Load(), flushes.Load())
	}
	s.levels(0, 0, 500)
}

func TestEveryCallerReturnsInTimeFromAFrozenServer(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	// The client is as go-redis makes it: its own calls do not obey contexts.
	client := server.Client(t, func(o *redis.Options) { o.ContextTimeoutEnabled = false })
	s := newStand(t, mustStore(t, client, nil, &redisstock.Options{MaxBatch: 50}), client, func(p *stock.Pool) { p.Total = 150 })
	s.hold("zoe")
	requests := make([]stock.Request, 200)
	for i := range requests {
		requests[i] = s.ask(fmt.Sprintf("buyer-%d", i))
	}
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	crowd(len(requests), func(i int) {
		hold, err := s.store.Reserve(ctx, requests[i])
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %+v, %v; want the end of the context", hold, err)
		}
		if end, _ := ctx.Deadline(); time.Since(end) > 2*time.Second {
			t.Errorf("a caller came back %v too late", time.Since(end))
		}
	})
	server.Cont()
	var wins atomic.Int64
	crowd(len(requests), func(i int) {
		switch _, err := s.insist(t.Context(), requests[i]); {
		case err == nil:
			wins.Add(1)
		case !errors.Is(err, stock.ErrAllHeld):
			t.Errorf("got %v", err)
		}
	})
	if wins.Load() != 149 {
		t.Errorf("%d won, want 149", wins.Load())
	}
	s.levels(0, 150, 0)
}

func TestAServerKilledInMidSaleLosesNothingOnAnAppendOnlyFile(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t, "appendonly yes", "appendfsync always")
	client := server.Client(t, func(o *redis.Options) { o.DialTimeout = time.Second })
	s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Total, p.Limit = 300, 1 })
	var wins atomic.Int64
	var held sync.Map
	var nemesis sync.WaitGroup
	nemesis.Go(func() {
		until(t, "the sale is under way", func() bool { return wins.Load() > 30 })
		server.Kill()
		server.Restart()
	})
	crowd(100, func(i int) {
		for j := range 6 {
			r := s.ask(fmt.Sprintf("buyer-%d-%d", i, j))
			switch hold, err := s.insist(t.Context(), r); {
			case err == nil:
				wins.Add(1)
				held.Store(hold.ID, hold.Expires)
			case !errors.Is(err, stock.ErrAllHeld):
				t.Errorf("reserve: %v", err)
			}
		}
	})
	nemesis.Wait()
	if wins.Load() != 300 {
		t.Errorf("%d won, want 300", wins.Load())
	}
	s.levels(0, 300, 0)
	held.Range(func(id, expires any) bool {
		hold, err := s.store.Lookup(t.Context(), id.(stock.ID))
		if err != nil || hold.State != stock.Held || !hold.Expires.Equal(expires.(time.Time)) {
			t.Errorf("promised until %v, found %+v, %v", expires, hold, err)
		}
		return true
	})
}

func TestACallThatWasGivenUpBeforeItLeftSendsNothing(t *testing.T) {
	t.Parallel()
	s, dialer := onServer(t, testenv.Redis(t), nil)
	s.hold("ann")
	before := s.contents()
	fault := dialer.CutRequest(faulty.Every, isScript)
	defer fault.Lift()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.store.Reserve(gone, s.ask("bob")); !errors.Is(err, context.Canceled) {
		t.Errorf("reserve: %v", err)
	}
	if _, err := s.store.Confirm(gone, s.ask("bob").ID); !errors.Is(err, context.Canceled) {
		t.Errorf("confirm: %v", err)
	}
	if fault.Count() != 0 {
		t.Errorf("%d calls were sent", fault.Count())
	}
	for key, dump := range s.contents() {
		if before[key] != dump {
			t.Errorf("%s was changed", key)
		}
	}
}

func TestAFullQueueIsBusyAtOnce(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	s, _ := onServer(t, server, &redisstock.Options{MaxQueue: 3}, func(o *redis.Options) { o.PoolSize = 1 })
	s.hold("ann")
	server.Stop()
	var waiting sync.WaitGroup
	for i := range 4 { // one in the air, three in the queue
		waiting.Go(func() {
			if _, err := s.store.Reserve(t.Context(), s.ask(fmt.Sprintf("buyer-%d", i))); err != nil {
				t.Errorf("reserve: %v", err)
			}
		})
		if i == 0 {
			// It flies alone as soon as it has left the queue.
			until(t, "the first call is in the air", func() bool { return redisstock.Flying(s.store, s.pool.SKU) })
		}
	}
	until(t, "the queue is full", func() bool { return redisstock.Waiting(s.store, s.pool.SKU) == 3 })
	begun := time.Now()
	if _, err := s.store.Reserve(t.Context(), s.ask("late")); !errors.Is(err, stock.ErrBusy) {
		t.Errorf("got %v, want busy", err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("the refusal took %v", took)
	}
	server.Cont()
	waiting.Wait()
	s.levels(5, 5, 0)
}
