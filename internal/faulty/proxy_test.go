package faulty_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
)

func newProxy(t *testing.T, addr string, trip time.Duration) *faulty.Proxy {
	t.Helper()
	proxy, err := faulty.NewProxy(addr, trip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	return proxy
}

// pings returns the median time of a PING.
func pings(t *testing.T, client *redis.Client, n int) time.Duration {
	t.Helper()
	took := make([]time.Duration, n)
	for i := range took {
		begin := time.Now()
		if err := client.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took)
	return took[n/2]
}

func TestProxy_AddsItsRoundTrip(t *testing.T) {
	server := testenv.Redis(t)
	direct := pings(t, server.Client(t), 300)
	for _, trip := range []time.Duration{200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
		proxy := newProxy(t, server.Addr(), trip)
		median := pings(t, server.Client(t, func(o *redis.Options) { o.Addr = proxy.Addr() }), 200)
		t.Logf("%v: adds %v to a PING of %v (medians)", trip, median-direct, direct)
		if median < trip*8/10 || median > trip+3*time.Millisecond {
			t.Errorf("the median round trip through %v took %v", trip, median)
		}
	}
}

func TestProxy_WhatIsUnderWayDoesNotWaitForWhatWentBefore(t *testing.T) {
	server := testenv.Redis(t)
	const trip = 200 * time.Millisecond
	proxy := newProxy(t, server.Addr(), trip)
	client := server.Client(t, func(o *redis.Options) { o.Addr, o.PoolSize = proxy.Addr(), 1 })
	// A subscription's connection takes commands before the last is answered.
	sub := client.Subscribe(t.Context(), server.Prefix()+"0")
	defer func() { _ = sub.Close() }()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for range 5 {
		if err := sub.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for range 5 {
		if _, err := sub.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took < trip*8/10 || took > 3*trip {
		t.Errorf("five requests, one behind the other, took %v, want about %v", took, trip)
	}
}

func TestProxy_CarriesEachByteInOrder(t *testing.T) {
	server := testenv.Redis(t)
	proxy := newProxy(t, server.Addr(), time.Millisecond)
	client := server.Client(t, func(o *redis.Options) { o.Addr = proxy.Addr() })
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			key, text := server.Prefix()+string(rune('a'+i)), strings.Repeat("0123456789", 100_000+i)
			if err := client.Set(t.Context(), key, text, 0).Err(); err != nil {
				t.Error(err)
			}
			if got, err := client.Get(t.Context(), key).Result(); err != nil || got != text {
				t.Errorf("%d bytes came back of %d, %v", len(got), len(text), err)
			}
		})
	}
	all.Wait()
}

func TestProxy_TheEndOfEitherSideReachesTheOther(t *testing.T) {
	server := testenv.NewRedis(t)
	proxy := newProxy(t, server.Addr(), time.Millisecond)
	client := server.Client(t, func(o *redis.Options) { o.Addr, o.MaxRetries = proxy.Addr(), -1 })
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	if err := client.Ping(brief(t)).Err(); err == nil {
		t.Error("a dead server answers")
	}
	server.Restart()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("the server is back: %v", err)
	}
}
