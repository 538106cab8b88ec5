package faultrows

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
)

// Subject makes what is tried on a client, and returns a call of it.
type Subject func(t *testing.T, client redis.UniversalClient) Call

// IsScript tells the requests of a row from those by which go-redis introduces
// itself.
var IsScript = faulty.Contains("evalsha")

// steady is the load of the rows.
var steady = Load{Rate: 200, Long: 3 * time.Second, Patience: time.Second}

var plainScript = redis.NewScript(`return redis.call('INCR', KEYS[1])`)

// Plain is what the subjects are compared with: a script that is called once for
// each call, in a trip of its own.
func Plain(t *testing.T, client redis.UniversalClient) Call {
	prefix := testenv.Name(t) + ":"
	return func(ctx context.Context, i int) error {
		return plainScript.Run(ctx, client, []string{prefix + strconv.Itoa(i)}).Err()
	}
}

// OneStalledConnection has one connection of the client's pool stop answering
// for ever while 200 calls a second are made.
func OneStalledConnection(t *testing.T, ours Subject) {
	o, p := onOneServer(t, ours, func(d *faulty.Dialer) { d.Stall(40, faulty.Forever, IsScript) })
	if most := p.Failed + o.Calls/50; o.Failed > most {
		t.Errorf("%d of %d calls failed, want %d at most", o.Failed, o.Calls, most)
	}
}

// StaleConnections has all connections of the client's pool die without a reset,
// ten idle ones, as in a failover. New ones work.
func StaleConnections(t *testing.T, ours Subject) {
	o, p := onOneServer(t, ours, func(d *faulty.Dialer) {
		if n := d.StaleAll(); n < pooled {
			t.Errorf("%d connections were open, want %d", n, pooled)
		}
	})
	if most := p.Back + 2*time.Second; o.Back > most {
		t.Errorf("back after %v, want %v at most", o.Back, most)
	}
}

// Hiccup has the server stand still for half a second, as one does that forks or
// runs a slow command: nobody who waits longer than that may notice but by the
// wait.
func Hiccup(t *testing.T, ours Subject) {
	server := testenv.NewRedis(t)
	ourCall, plainCall := ours(t, server.Client(t)), Plain(t, server.Client(t))
	warm(t, ourCall)
	warm(t, plainCall)
	time.AfterFunc(500*time.Millisecond, func() {
		server.Stop()
		time.Sleep(500 * time.Millisecond)
		server.Cont()
	})
	o, p := both(t, Load{Rate: 200, Long: 1500 * time.Millisecond, Patience: 5 * time.Second}, ourCall, plainCall)
	if o.Failed > p.Failed {
		t.Errorf("%d of %d calls failed, want %d", o.Failed, o.Calls, p.Failed)
	}
}

// pooled is how many connections stand idle before a row begins.
const pooled = 10

// onOneServer puts the load on ours and on the plain script at the same time,
// each through a client of its own with the same fault.
func onOneServer(t *testing.T, ours Subject, fault func(*faulty.Dialer)) (o, p Toll) {
	t.Helper()
	server := testenv.Redis(t)
	side := func(subject Subject) (Call, *faulty.Dialer) {
		dialer := faulty.NewDialer()
		client := server.Client(t, func(o *redis.Options) { o.Dialer = dialer.DialContext })
		call := subject(t, client)
		warm(t, call)
		fill(t, client)
		return call, dialer
	}
	ourCall, ourDialer := side(ours)
	plainCall, plainDialer := side(Plain)
	fault(ourDialer)
	fault(plainDialer)
	return both(t, steady, ourCall, plainCall)
}

// both puts a load on both sides at once, and logs what became of it.
func both(t *testing.T, load Load, ours, plain Call) (o, p Toll) {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() { o = load.Run(t.Context(), ours) })
	all.Go(func() { p = load.Run(t.Context(), plain) })
	all.Wait()
	t.Logf("ours:  %v", o)
	t.Logf("plain: %v", p)
	return o, p
}

// warm makes a call that has to succeed; it loads the scripts.
func warm(t *testing.T, call Call) {
	t.Helper()
	for i := range 3 {
		if err := call(t.Context(), -1-i); err != nil {
			t.Fatal(err)
		}
	}
}

// fill opens the pool's connections and leaves them idle.
func fill(t *testing.T, client *redis.Client) {
	t.Helper()
	for range pooled {
		conn := client.Conn()
		if err := conn.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
}

// FrozenNode freezes one node of a cluster of three: a third of the keys are out
// of reach, and no others.
func FrozenNode(t *testing.T, ours Subject) {
	cluster := testenv.NewRedisCluster(t)
	side := func(subject Subject) Call {
		call := subject(t, cluster.Client(t))
		for i := range 30 { // on each node, so that all have the script and a connection
			if err := call(t.Context(), -1-i); err != nil {
				t.Fatal(err)
			}
		}
		return call
	}
	ourCall, plainCall := side(ours), side(Plain)
	cluster.Nodes()[0].Stop()
	o, p := both(t, steady, ourCall, plainCall)
	cluster.Nodes()[0].Cont()
	if least := p.OK() * 8 / 10; o.OK() < least {
		t.Errorf("%d of %d calls succeeded, want %d at least", o.OK(), o.Calls, least)
	}
}

// eight callers are the few of whom each wants an answer as fast as if it were
// alone.
const eight = 8

// Distance puts 5 ms of round trip between the client and the server, and lets
// eight callers call one after the other.
func Distance(t *testing.T, ours Subject) {
	server := testenv.Redis(t)
	proxy, err := faulty.NewProxy(server.Addr(), 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	side := func(subject Subject) Call {
		call := subject(t, server.Client(t, func(o *redis.Options) { o.Addr = proxy.Addr() }))
		warm(t, call)
		Loop(t.Context(), eight, 300*time.Millisecond, call) // until the distance is known
		return call
	}
	ourCall, plainCall := side(ours), side(Plain)
	var o, p Toll
	for round := range 3 { // the better of them, since the machine has other work
		at := func(call Call) Call {
			return func(ctx context.Context, i int) error { return call(ctx, i+(round+1)*1_000_000) }
		}
		o = better(o, Loop(t.Context(), eight, 250*time.Millisecond, at(ourCall)))
		p = better(p, Loop(t.Context(), eight, 250*time.Millisecond, at(plainCall)))
	}
	t.Logf("ours:  %v", o)
	t.Logf("plain: %v", p)
	if o.Failed+p.Failed > 0 {
		t.Error("calls failed")
	}
	if most := p.Median * 3 / 2; o.Median > most {
		t.Errorf("the median call took %v, want %v at most", o.Median, most)
	}
}

// better is the one with the smaller median; failures count in any case.
func better(a, b Toll) Toll {
	if a.Calls == 0 || b.Failed > a.Failed || b.Failed == a.Failed && b.Median < a.Median {
		return b
	}
	return a
}
