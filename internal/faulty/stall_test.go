package faulty_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/faulty"
)

// timedOut fails the test unless err is the end of a wait for an answer.
func timedOut(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want a timeout", err)
	}
}

func TestStall_OneConnectionIsSilentAndTheOthersWork(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	fault := b.dialer.Stall(1, faulty.Forever, isIncr)
	silent := make(chan error, 1)
	go func() { silent <- b.client.Incr(brief(t), b.key).Err() }()
	fault.MustFire(t)
	if err := b.client.Incr(t.Context(), b.key).Err(); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	timedOut(t, <-silent)
	if n := b.counter(t); n != 1 {
		t.Errorf("counter = %d, want 1: the silent request went nowhere", n)
	}
}

func TestStall_ItsEndDeliversWhatWaited(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	const long = 150 * time.Millisecond
	b.dialer.Stall(1, long, isIncr)
	begin := time.Now()
	said, err := b.client.Incr(t.Context(), b.key).Result()
	if err != nil || said != 1 {
		t.Errorf("INCR = %d, %v", said, err)
	}
	if waited := time.Since(begin); waited < long {
		t.Errorf("answered after %v, want %v at least", waited, long)
	}
	if said, err := b.client.Incr(t.Context(), b.key).Result(); err != nil || said != 2 {
		t.Errorf("afterwards INCR = %d, %v", said, err)
	}
}

func TestStall_ARequestIsExecutedAfterItsSenderGaveUpAndClosed(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	b.dialer.Stall(1, 600*time.Millisecond, isIncr)
	timedOut(t, b.client.Incr(brief(t), b.key).Err()) // go-redis closes what has timed out
	if n := b.counter(t); n != 0 {
		t.Fatalf("counter = %d, want 0: the request is under way", n)
	}
	for deadline := time.Now().Add(10 * time.Second); b.counter(t) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the request never arrived")
		}
	}
}

func TestStaleAll_OpenConnectionsAreSilentAndNewOnesWork(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	if n := b.dialer.StaleAll(); n != 1 {
		t.Fatalf("%d connections were open, want 1", n)
	}
	timedOut(t, b.client.Incr(brief(t), b.key).Err())
	if err := b.client.Incr(t.Context(), b.key).Err(); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	if n := b.counter(t); n != 1 {
		t.Errorf("counter = %d, want 1", n)
	}
}
