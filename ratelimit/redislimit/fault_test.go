package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/ratelimit/redislimit"
)

var perDay = ratelimit.Limit{Name: "day", Quota: 10, Window: 24 * time.Hour}

func take(t *testing.T, l ratelimit.Limiter, takes ...ratelimit.Take) ratelimit.Decision {
	t.Helper()
	d, err := l.Take(t.Context(), takes...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func wantRemaining(t *testing.T, l ratelimit.Limiter, key string, low, high int64) {
	t.Helper()
	d := take(t, l, ratelimit.Take{Limit: perDay, Key: key})
	if r := d.Statuses[0].Remaining; r < low || r > high {
		t.Fatalf("%d remain, want %d to %d", r, low, high)
	}
}

func TestLostReply_MayChargeTwiceAndNeverTooLittle(t *testing.T) {
	dialer := faulty.NewDialer()
	client := testenv.Redis(t).Client(t, func(o *redis.Options) { o.Dialer = dialer.DialContext })
	limiter := newLimiter(t, client, &redislimit.Options{Prefix: testenv.Name(t), Timeout: time.Minute})
	wantRemaining(t, limiter, "k", 10, 10)
	fault := dialer.CutReply(1, faulty.Contains("evalsha"))
	if d := take(t, limiter, ratelimit.Take{Limit: perDay, Key: "k", Cost: 1}); !d.Allowed {
		t.Fatal("denied")
	}
	fault.MustFire(t)
	wantRemaining(t, limiter, "k", 8, 9)
}

func TestLostReply_OfARefundGivesBackOnce(t *testing.T) {
	dialer := faulty.NewDialer()
	client := testenv.Redis(t).Client(t, func(o *redis.Options) { o.Dialer = dialer.DialContext })
	limiter := newLimiter(t, client, &redislimit.Options{Prefix: testenv.Name(t), Timeout: time.Minute})
	other := take(t, limiter, ratelimit.Take{Limit: perDay, Key: "k", Cost: 4})
	d := take(t, limiter, ratelimit.Take{Limit: perDay, Key: "k", Cost: 4})
	if err := limiter.Refund(t.Context(), ratelimit.Decision{Allowed: true}); err != nil {
		t.Fatal(err)
	}
	if err := limiter.Refund(t.Context(), d); err != nil { // loads the script
		t.Fatal(err)
	}
	d = take(t, limiter, ratelimit.Take{Limit: perDay, Key: "k", Cost: 4})
	fault := dialer.CutReply(1, faulty.Contains("evalsha"))
	if err := limiter.Refund(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	fault.MustFire(t)
	wantRemaining(t, limiter, "k", 6, 6)
	_ = other
}

func TestScriptFlush_DuringPipelinedCallsAdmitsExactlyTheLimit(t *testing.T) {
	client := testenv.Redis(t).Client(t)
	limiter := newLimiter(t, client, &redislimit.Options{Prefix: testenv.Name(t), Timeout: time.Minute})
	ctx, stop := context.WithCancel(t.Context())
	var flusher, callers sync.WaitGroup
	flusher.Go(func() {
		for ctx.Err() == nil {
			if err := client.ScriptFlush(t.Context()).Err(); err != nil {
				t.Errorf("SCRIPT FLUSH: %v", err)
			}
		}
	})
	passed := make(chan bool, 1000)
	for range cap(passed) {
		callers.Go(func() {
			d, err := limiter.Take(t.Context(), ratelimit.Take{Limit: perDay, Key: "k", Cost: 1})
			if err != nil {
				t.Error(err)
			}
			passed <- d.Allowed
		})
	}
	callers.Wait()
	stop()
	flusher.Wait()
	close(passed)
	n := 0
	for ok := range passed {
		if ok {
			n++
		}
	}
	if n != 10 {
		t.Fatalf("%d of 1000 passed, want 10", n)
	}
}

func TestThreeProcesses_AdmitExactlyTheLimitTogether(t *testing.T) {
	server, prefix := testenv.Redis(t), testenv.Name(t)
	hundred := ratelimit.Limit{Name: "hundred", Quota: 100, Window: 24 * time.Hour}
	passed := make(chan bool, 3*700)
	var wg sync.WaitGroup
	for range 3 { // a client and a limiter each, as processes have
		limiter := newLimiter(t, server.Client(t), &redislimit.Options{Prefix: prefix, Timeout: time.Minute})
		for range 700 {
			wg.Go(func() {
				d, err := limiter.Take(t.Context(), ratelimit.Take{Limit: hundred, Key: "k", Cost: 1})
				if err != nil {
					t.Error(err)
				}
				passed <- d.Allowed
			})
		}
	}
	wg.Wait()
	close(passed)
	n := 0
	for ok := range passed {
		if ok {
			n++
		}
	}
	if n != 100 {
		t.Fatalf("%d passed, want 100", n)
	}
}

func TestFrozenRedis_AnswersWithinTheBound(t *testing.T) {
	server := testenv.NewRedis(t)
	limiter := newLimiter(t, server.Client(t), &redislimit.Options{Timeout: 200 * time.Millisecond})
	take(t, limiter, ratelimit.Take{Limit: perDay, Key: "k", Cost: 1})
	server.Stop()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			start := time.Now()
			_, err := limiter.Take(t.Context(), ratelimit.Take{Limit: perDay, Key: "k", Cost: 1})
			if took := time.Since(start); !errors.Is(err, ratelimit.ErrUnavailable) || took > 2*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
	wg.Wait()
	server.Cont()
}

func TestClock_SetBackLocksNobodyOutAndRefillsNobody(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	limiter := newLimiter(t, client, nil)
	one := ratelimit.Take{Limit: ratelimit.Limit{Name: "clock", Quota: 10, Window: 10 * time.Second}, Key: "k", Cost: 1}
	all := one
	all.Cost = 10
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	server.SetTime(now)
	if !take(t, limiter, all).Allowed {
		t.Fatal("denied")
	}
	for _, step := range []time.Duration{-time.Hour, -30 * time.Second} {
		now = now.Add(step)
		server.SetTime(now)
		d := take(t, limiter, one)
		if d.Allowed {
			t.Fatalf("clock %v: a free refill", step)
		}
		if d.RetryAfter > 10*time.Second {
			t.Fatalf("clock %v: locked out for %v", step, d.RetryAfter)
		}
		now = now.Add(d.RetryAfter)
		server.SetTime(now)
		if !take(t, limiter, one).Allowed {
			t.Fatalf("clock %v: denied after RetryAfter", step)
		}
	}
	now = now.Add(time.Hour)
	server.SetTime(now)
	if !take(t, limiter, all).Allowed || take(t, limiter, one).Allowed {
		t.Fatal("clock forward: not exactly one burst")
	}
}

func TestBuckets_ExpireWhenTheyAreEmptyAndShowNothing(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		prefix := testenv.Name(t)
		limiter := newLimiter(t, client, &redislimit.Options{Prefix: prefix, Timeout: time.Minute})
		hour := ratelimit.Limit{Name: "canary", Quota: 60, Window: time.Hour}
		for i := range 100 {
			d := take(t, limiter, ratelimit.Take{Limit: hour, Key: fmt.Sprint("canary{}:\x00\n", i), Cost: 2})
			if i%2 == 0 {
				if err := limiter.Refund(t.Context(), d); err != nil {
					t.Fatal(err)
				}
			}
		}
		keys, err := client.Keys(t.Context(), prefix+"*").Result()
		if err != nil || len(keys) != 100 { // 50 buckets, 50 marks of refunds
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, key := range keys {
			ttl, err := client.PTTL(t.Context(), key).Result()
			if err != nil || ttl <= 0 || ttl > 2*time.Minute {
				t.Errorf("%s: TTL %v, %v", key, ttl, err)
			}
			if len(key) > len(prefix)+60 || strings.Contains(key, "canary") {
				t.Errorf("key %q", key)
			}
		}
	})
}

func TestBucket_OfOtherBytesIsEmpty(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		for _, bytes := range []string{"nan", "-inf", "x", "", "-1e300"} {
			prefix := testenv.Name(t)
			limiter := newLimiter(t, client, &redislimit.Options{Prefix: prefix, Timeout: time.Minute})
			take(t, limiter, ratelimit.Take{Limit: perDay, Key: "k", Cost: 10})
			keys, _ := client.Keys(t.Context(), prefix+"*").Result()
			if err := client.Set(t.Context(), keys[0], bytes, 0).Err(); err != nil {
				t.Fatal(err)
			}
			wantRemaining(t, limiter, "k", 10, 10)
		}
	})
}

func TestNew_MistakesShowAtStartUp(t *testing.T) {
	client := testenv.Mini(t)
	if _, err := redislimit.New(nil, nil); err == nil {
		t.Error("no client")
	}
	for _, o := range []redislimit.Options{{Prefix: "a{b}"}, {Prefix: strings.Repeat("p", 65)}, {Timeout: -1}} {
		if _, err := redislimit.New(client, &o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}
