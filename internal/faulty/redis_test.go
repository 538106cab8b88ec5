package faulty_test

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
)

// isIncr tells the requests of these tests from those by which go-redis
// introduces itself.
var isIncr = faulty.Contains("incr")

// redisBundle is a counter on a real Redis, seen through a faulty dialer.
type redisBundle struct {
	dialer *faulty.Dialer
	key    string
	client *redis.Client // through the dialer
	truth  *redis.Client // past it
}

func newRedisBundle(t *testing.T, edits ...func(*redis.Options)) *redisBundle {
	t.Helper()
	server := testenv.Redis(t)
	dialer := faulty.NewDialer()
	edits = append(edits, func(o *redis.Options) { o.Dialer = dialer.DialContext })
	b := &redisBundle{
		dialer: dialer,
		key:    server.Prefix() + "counter",
		client: server.Client(t, edits...),
		truth:  server.Client(t),
	}
	if err := b.client.Ping(t.Context()).Err(); err != nil { // a connection stands from now on
		t.Fatal(err)
	}
	return b
}

// counter is what Redis holds.
func (b *redisBundle) counter(t *testing.T) int {
	t.Helper()
	n, err := b.truth.Get(t.Context(), b.key).Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	return n
}

func noRetries(o *redis.Options) { o.MaxRetries = -1 }

func TestLostReply_OfOneINCRTakesTwoWithDefaultRetries(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t)
	fault := b.dialer.CutReply(1, isIncr)
	said, err := b.client.Incr(t.Context(), b.key).Result()
	if err != nil || said != 2 {
		t.Errorf("INCR = %d, %v; go-redis was to report success, and 2", said, err)
	}
	fault.MustFire(t)
	if n := b.counter(t); n != 2 {
		t.Errorf("the counter is %d after one INCR; want 2: this is the failure that the tool is for", n)
	}
}

func TestCutReply_ServerHasExecutedAndClientReadsEOF(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	b.dialer.CutReply(1, isIncr)
	if err := b.client.Incr(t.Context(), b.key).Err(); !errors.Is(err, io.EOF) {
		t.Errorf("err = %v, want io.EOF", err)
	}
	if n := b.counter(t); n != 1 {
		t.Errorf("counter = %d, want 1", n)
	}
}

func TestCutRequest_ServerHasNotExecutedAndClientReadsEOF(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	fault := b.dialer.CutRequest(1, isIncr)
	if err := b.client.Incr(t.Context(), b.key).Err(); !errors.Is(err, io.EOF) {
		t.Errorf("err = %v, want io.EOF", err)
	}
	fault.MustFire(t)
	if n := b.counter(t); n != 0 {
		t.Errorf("counter = %d, want 0", n)
	}
	if err := b.client.Incr(t.Context(), b.key).Err(); err != nil {
		t.Errorf("the next connection: %v", err)
	}
}

func TestDropReply_ClientWaitsUntilItsDeadline(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	fault := b.dialer.DropReply(1, isIncr)
	ctx := brief(t)
	begin := time.Now()
	err := b.client.Incr(ctx, b.key).Err()
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want a timeout", err)
	}
	if waited := time.Since(begin); waited < 250*time.Millisecond {
		t.Errorf("gave up after %s", waited)
	}
	fault.MustFire(t)
	if n := b.counter(t); n != 1 {
		t.Errorf("counter = %d, want 1", n)
	}
}

func TestDelayReply_ReplyComesLateButWhole(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	const delay = 150 * time.Millisecond
	b.dialer.DelayReply(1, delay, isIncr)
	begin := time.Now()
	said, err := b.client.Incr(t.Context(), b.key).Result()
	if err != nil || said != 1 {
		t.Errorf("INCR = %d, %v", said, err)
	}
	if waited := time.Since(begin); waited < delay {
		t.Errorf("answered after %s, want %s at least", waited, delay)
	}
}

func TestDelayReply_LongerThanTheDeadlineIsATimeout(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	b.dialer.DelayReply(1, time.Minute, isIncr)
	if err := b.client.Incr(brief(t), b.key).Err(); err == nil {
		t.Error("no error")
	}
}

func TestCount_TheNthMatchingReplyIsTheOne(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	fault := b.dialer.CutReply(3, isIncr)
	for i := 1; i <= 4; i++ {
		if err := b.client.Get(t.Context(), "unrelated").Err(); !errors.Is(err, redis.Nil) {
			t.Fatal(err) // not counted
		}
		err := b.client.Incr(t.Context(), b.key).Err()
		if want := i == 3; (err != nil) != want {
			t.Errorf("INCR %d: %v", i, err)
		}
	}
	if fault.Count() != 1 {
		t.Errorf("happened %d times", fault.Count())
	}
}

func TestEvery_HappensUntilLifted(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	fault := b.dialer.CutReply(faulty.Every, isIncr)
	for range 3 {
		if err := b.client.Incr(t.Context(), b.key).Err(); err == nil {
			t.Error("no error")
		}
	}
	fault.Lift()
	said, err := b.client.Incr(t.Context(), b.key).Result()
	if err != nil || said != 4 {
		t.Errorf("INCR = %d, %v, want 4", said, err)
	}
	if fault.Count() != 3 {
		t.Errorf("happened %d times", fault.Count())
	}
}

func TestTwoFaults_BothCountAndTheFirstPlannedHappens(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	first, second := b.dialer.CutReply(2, isIncr), b.dialer.DropReply(2, isIncr)
	for i := range 3 {
		err := b.client.Incr(t.Context(), b.key).Err()
		if want := i == 1; (err != nil) != want {
			t.Errorf("INCR %d: %v", i+1, err)
		}
	}
	if first.Count() != 1 || second.Count() != 0 {
		t.Errorf("happened %d and %d times, want 1 and 0", first.Count(), second.Count())
	}
}

func TestCutAll_OpenConnectionsEndAndNewOnesWork(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t)
	if err := b.client.Incr(t.Context(), b.key).Err(); err != nil {
		t.Fatal(err)
	}
	if b.dialer.Open() == 0 {
		t.Error("no connection is open")
	}
	b.dialer.CutAll()
	if n := b.dialer.Open(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
	if err := b.client.Incr(t.Context(), b.key).Err(); err != nil {
		t.Error(err)
	}
	if n := b.counter(t); n != 2 {
		t.Errorf("counter = %d, want 2: the request on the cut connection went nowhere", n)
	}
}

func TestPipeline_LostReplyLosesThoseOfAllItsCommands(t *testing.T) {
	t.Parallel()
	b := newRedisBundle(t, noRetries)
	b.dialer.CutReply(1, isIncr)
	_, err := b.client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for range 2000 {
			p.Incr(t.Context(), b.key)
		}
		return nil
	})
	if !errors.Is(err, io.EOF) {
		t.Errorf("err = %v, want io.EOF", err)
	}
}
