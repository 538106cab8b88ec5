package redisscript_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/outage"
	"github.com/firstcome/firstcome/internal/redisscript"
	"github.com/firstcome/firstcome/internal/testenv"
)

// journal is a log that a test may read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// callers calls from several goroutines until the time is over, and returns how
// long the calls of its second half took on average.
func callers(n int, d time.Duration, call func() error) (mean time.Duration, ok, failed int64) {
	var all sync.WaitGroup
	var calls, wait, good, bad atomic.Int64
	begun := time.Now()
	for range n {
		all.Go(func() {
			for time.Since(begun) < d {
				at := time.Now()
				if call() == nil {
					good.Add(1)
				} else {
					bad.Add(1)
				}
				if at.Sub(begun) > d/2 {
					calls.Add(1)
					wait.Add(int64(time.Since(at)))
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	all.Wait()
	return time.Duration(wait.Load() / max(1, calls.Load())), good.Load(), bad.Load()
}

func TestAServerThatIsAwayCostsItsCallersNothingAfterASecond(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ leave, back func(*testenv.RedisServer) }{
		"refused": {(*testenv.RedisServer).Kill, (*testenv.RedisServer).Restart},
		"frozen":  {(*testenv.RedisServer).Stop, (*testenv.RedisServer).Cont},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, log := testenv.NewRedis(t), &journal{}
			r, key := redisscript.NewRunner(server.Client(t), &redisscript.Options{Timeout: 2 * time.Second, Logger: log.logger()}), testenv.Name(t)
			run(t, r, count, key, 1)
			c.leave(server)
			call := func() error {
				_, err := r.Run(t.Context(), count, []string{key}, 1)
				if err != nil && outage.Of(t.Context(), err) != outage.Unavailable {
					t.Errorf("%v is no outage", err)
				}
				return err
			}
			mean, ok, _ := callers(8, 3*time.Second, call)
			if mean > 5*time.Millisecond || ok > 0 {
				t.Errorf("after a second and a half a call takes %v, want 5ms at most; %d went well", mean, ok)
			}
			if err := call(); !errors.Is(err, redisscript.ErrAway) || !errors.Is(err, coalesce.ErrNotSent) {
				t.Errorf("got %v, want that it is away and nothing was sent", err)
			}
			c.back(server)
			until(t, "it is found back", func() bool { return call() == nil })
			if text := log.String(); strings.Count(text, "does not answer") != 1 || strings.Count(text, "answers again") != 1 || strings.Contains(text, key) {
				t.Errorf("the log is %q, want one line at the opening and one at the closing, without keys", text)
			}
		})
	}
}

func TestASlowServerOpensNoBreaker(t *testing.T) {
	t.Parallel()
	log, dialer := &journal{}, faulty.NewDialer()
	client := testenv.NewRedis(t).Client(t, func(o *redis.Options) { o.Dialer = dialer.DialContext })
	r, key := redisscript.NewRunner(client, &redisscript.Options{Logger: log.logger()}), testenv.Name(t)
	run(t, r, count, key, 1)
	dialer.DelayReply(faulty.Every, 200*time.Millisecond, faulty.Contains("eval"))
	_, ok, failed := callers(8, 2*time.Second, func() error {
		_, err := r.Run(t.Context(), count, []string{key}, 1)
		return err
	})
	if ok == 0 || failed > 0 || log.String() != "" {
		t.Errorf("%d ok, %d failed; the log is %q", ok, failed, log.String())
	}
}

func TestNothingThatACallerDoesOpensTheBreaker(t *testing.T) {
	t.Parallel()
	log, server := &journal{}, testenv.NewRedis(t, "maxmemory-policy noeviction")
	client := server.Client(t)
	r, key := redisscript.NewRunner(client, &redisscript.Options{Logger: log.logger()}), testenv.Name(t)
	run(t, r, count, key, 1)
	client.LPush(t.Context(), key+"list", "x")
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond) // leaves soon
		_, _ = r.Run(ctx, count, []string{key}, 1)
		cancel()
		if _, err := r.Run(t.Context(), count, []string{key + "list"}, 1); !redis.HasErrorPrefix(err, "WRONGTYPE") {
			t.Fatalf("got %v", err)
		}
		if _, err := r.Run(t.Context(), fail, []string{key}); err == nil || errors.Is(err, redisscript.ErrAway) {
			t.Fatalf("got %v", err)
		}
		if _, err := r.Run(t.Context(), echo, []string{key}, make(chan int)); err == nil || errors.Is(err, redisscript.ErrAway) {
			t.Fatalf("an argument that can't be sent: %v", err)
		}
	}
	client.ConfigSet(t.Context(), "maxmemory", "1")
	for range 20 {
		if _, err := r.Run(t.Context(), count, []string{key}, 1); !redis.HasErrorPrefix(err, "OOM") {
			t.Fatalf("got %v", err)
		}
	}
	run(t, r, free, key) // what releases memory is not refused
	if log.String() != "" {
		t.Errorf("the log is %q", log.String())
	}
}

func TestACallOnADeadConnectionIsAnsweredOnAnother(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(r *redisscript.Runner, ctx context.Context, key string) (any, error){
		"Run": func(r *redisscript.Runner, ctx context.Context, key string) (any, error) {
			return r.Run(ctx, read, []string{key})
		},
		"RunReplicated": func(r *redisscript.Runner, ctx context.Context, key string) (any, error) {
			reply, _, err := r.RunReplicated(ctx, 0, time.Millisecond, read, []string{key})
			return reply, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dialer := faulty.NewDialer()
			client := testenv.Redis(t).Client(t, func(o *redis.Options) { o.Dialer, o.ReadTimeout = dialer.DialContext, time.Minute })
			r, key := redisscript.NewRunner(client, nil), testenv.Name(t)
			client.Set(t.Context(), key, "x", time.Minute)
			for range 2 { // the script is loaded
				if _, err := run(r, t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			fault := dialer.DropReply(1, faulty.Contains("eval"))
			begun := time.Now()
			got, err := run(r, t.Context(), key)
			fault.MustFire(t)
			if took := time.Since(begun); got != "x" || err != nil || took > 4*time.Second {
				t.Errorf("got %v, %v after %v, want the answer after one try", got, err, took)
			}
		})
	}
}

func TestAClientWithoutRetriesIsSentNothingAgain(t *testing.T) {
	t.Parallel()
	dialer := faulty.NewDialer()
	client := testenv.Redis(t).Client(t, func(o *redis.Options) { o.Dialer, o.MaxRetries = dialer.DialContext, -1 })
	r, key := redisscript.NewRunner(client, nil), testenv.Name(t)
	run(t, r, count, key, 1)
	fault := dialer.CutReply(1, faulty.Contains("eval"))
	if _, err := r.Run(t.Context(), count, []string{key}, 1); err == nil {
		t.Error("no error")
	}
	fault.MustFire(t)
	if got := run(t, r, count, key, 1); got != int64(3) {
		t.Errorf("the count is %v, want 3", got)
	}
}

func TestAClientThatDoesNotObeyContextsIsWarnedOfAndStillHoldsNobody(t *testing.T) {
	t.Parallel()
	server, log := testenv.NewRedis(t), &journal{}
	client := server.Client(t, func(o *redis.Options) { o.ContextTimeoutEnabled = false })
	opts := &redisscript.Options{Timeout: time.Second, Logger: log.logger(), Owner: "mystore"}
	r, key := redisscript.NewRunner(client, opts), testenv.Name(t)
	redisscript.NewRunner(client, opts)
	if text := log.String(); strings.Count(text, "store=mystore") != 1 || !strings.Contains(text, "ContextTimeoutEnabled") {
		t.Errorf("the log is %q, want one warning", text)
	}
	run(t, r, count, key, 1)
	server.Stop()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			begun := time.Now()
			_, err := r.Run(t.Context(), count, []string{key}, 1)
			if took := time.Since(begun); err == nil || took > 2500*time.Millisecond {
				t.Errorf("got %v after %v, want an error after 1s", err, took)
			}
		})
	}
	all.Wait()
	mean, _, _ := callers(4, 2*time.Second, func() error { _, err := r.Run(t.Context(), count, []string{key}, 1); return err })
	if mean > 5*time.Millisecond {
		t.Errorf("then a call takes %v, want 5ms at most", mean)
	}
	server.Cont()
	until(t, "it is found back", func() bool {
		_, err := r.Run(t.Context(), count, []string{key}, 1)
		return err == nil
	})
}

func TestAFrozenNodeOfAClusterHarmsItsOwnKeysAlone(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t, "cluster-require-full-coverage no", "cluster-node-timeout 60000")
	client := cluster.Client(t)
	r := redisscript.NewRunner(client, &redisscript.Options{Timeout: 2 * time.Second, Logger: (&journal{}).logger()})
	owned := func(node int) string { // a key of that node
		for i := 0; ; i++ {
			key := fmt.Sprintf("%s%d", testenv.Name(t), i)
			if c, err := client.MasterForKey(t.Context(), key); err != nil {
				t.Fatal(err)
			} else if c.Options().Addr == cluster.Nodes()[node].Addr() {
				return key
			}
		}
	}
	keys := []string{owned(0), owned(1), owned(2)}
	for range 3 {
		for _, key := range keys {
			run(t, r, count, key, 1)
		}
	}
	cluster.Nodes()[0].Stop()
	defer cluster.Nodes()[0].Cont()
	var all sync.WaitGroup
	for node, key := range keys {
		for kind, call := range map[string]func() error{
			"Run":    func() error { _, err := r.Run(t.Context(), count, []string{key}, 1); return err },
			"RunNow": func() error { _, err := r.RunNow(t.Context(), count, []string{key}, 1); return err },
		} {
			all.Go(func() {
				mean, ok, failed := callers(8, 4*time.Second, call)
				switch {
				case node == 0 && (ok > 0 || mean > 5*time.Millisecond):
					t.Errorf("%s on the frozen node: %d ok, and a call takes %v", kind, ok, mean)
				case node > 0 && (failed > 0 || mean > 200*time.Millisecond):
					t.Errorf("%s on node %d: %d ok, %d failed, and a call takes %v", kind, node, ok, failed, mean)
				}
			})
		}
	}
	all.Wait()
	cluster.Nodes()[0].Cont()
	until(t, "the node is found back", func() bool {
		_, err := r.Run(t.Context(), count, keys[:1], 1)
		return err == nil
	})
}

func TestAClusterWithAFrozenNodeIsReachedForTheFirstTime(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t, "cluster-require-full-coverage no", "cluster-node-timeout 60000")
	key := testenv.Name(t)
	owner, err := cluster.Client(t).MasterForKey(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range cluster.Nodes() {
		if node.Addr() != owner.Options().Addr {
			node.Stop()
			defer node.Cont()
			break
		}
	}
	for range 6 { // which node a client asks first is chance
		r := redisscript.NewRunner(cluster.Client(t), &redisscript.Options{Logger: (&journal{}).logger()})
		until(t, "it is served", func() bool {
			_, err := r.Run(t.Context(), count, []string{key}, 1)
			return err == nil
		})
	}
}

func TestARingIsGatheredByShard(t *testing.T) {
	t.Parallel()
	good, bad := testenv.Redis(t), testenv.NewRedis(t)
	ring := redis.NewRing(&redis.RingOptions{
		Addrs: map[string]string{"good": good.Addr(), "bad": bad.Addr()}, ContextTimeoutEnabled: true,
		HeartbeatFrequency: time.Hour, // it would leave the bad one out
	})
	defer func() { _ = ring.Close() }()
	r := redisscript.NewRunner(ring, &redisscript.Options{Timeout: time.Second, Logger: (&journal{}).logger()})
	var keys []string
	for i := 0; len(keys) < 20; i++ {
		key := fmt.Sprintf("%s%d", testenv.Name(t), i)
		run(t, r, count, key, 1)
		if c, err := ring.GetShardClientForKey(key); err == nil && c.Options().Addr == good.Addr() {
			keys = append(keys, key)
		}
	}
	bad.Stop()
	defer bad.Cont()
	var other sync.WaitGroup
	for i := range 40 {
		other.Go(func() { _, _ = r.Run(t.Context(), count, []string{fmt.Sprintf("%s%d", testenv.Name(t), i)}, 1) })
	}
	for _, key := range keys {
		run(t, r, count, key, 1)
	}
	other.Wait()
}

func TestARefusedConnectionIsAnOutageAtOnce(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	client := redis.NewClient(&redis.Options{Addr: closed.Addr().String(), ContextTimeoutEnabled: true})
	defer func() { _ = client.Close() }()
	r := redisscript.NewRunner(client, &redisscript.Options{Logger: (&journal{}).logger()})
	_, err = r.Run(t.Context(), count, []string{"k"}, 1)
	if outage.Of(t.Context(), err) != outage.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestSlotsOfANodeThatIsAwayAreFollowedToAnother(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t, "cluster-require-full-coverage no", "cluster-node-timeout 60000")
	client := cluster.Client(t)
	r := redisscript.NewRunner(client, &redisscript.Options{Timeout: 2 * time.Second, Logger: (&journal{}).logger()})
	nodes, key := cluster.Nodes(), testenv.Name(t)
	slot := testenv.RedisSlot(key)
	run(t, r, count, key, 1)
	run(t, r, count, key, 1)
	old := cluster.Owner(t, slot)
	old.Stop()
	defer old.Cont()
	call := func() error { _, err := r.Run(t.Context(), count, []string{key}, 1); return err }
	until(t, "it is away", func() bool { return errors.Is(call(), redisscript.ErrAway) })

	nodes = slices.DeleteFunc(nodes, func(n *testenv.RedisServer) bool { return n == old })
	heir := nodes[0].Client(t).ClusterMyID(t.Context()).Val()
	for _, node := range nodes { // as after a failover
		if err := node.Client(t).Do(t.Context(), "cluster", "setslot", slot, "node", heir).Err(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for call() != nil {
		if time.Since(began) > 20*time.Second { // by itself the client looks once a minute
			t.Fatalf("the slot's new owner is not asked within 20 s: %v", call())
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("found after %v", time.Since(began))
}
