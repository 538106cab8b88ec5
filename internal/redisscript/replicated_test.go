package redisscript_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/internal/redisscript"
	"github.com/firstcome/firstcome/internal/testenv"
)

const ample = 10 * time.Second // a busy machine's replica has heard of a write by then

func longReads(o *redis.Options) { o.ReadTimeout = 2 * ample }

// counted runs count once and returns how many replicas have it. It ends the
// test unless the count is then want.
func counted(t *testing.T, r *redisscript.Runner, key string, want, replicas int, wait time.Duration) int {
	t.Helper()
	reply, acks, err := r.RunReplicated(t.Context(), replicas, wait, count, []string{key}, 1)
	if err != nil || reply != int64(want) {
		t.Fatalf("got %v, %v; want %d", reply, err, want)
	}
	return acks
}

func TestAReplicatedRunTellsHowManyReplicasHaveIt(t *testing.T) {
	t.Parallel()
	pair := testenv.NewRedisPair(t)
	r, key := redisscript.NewRunner(pair.Primary.Client(t, longReads), nil), testenv.Name(t)
	if n := counted(t, r, key, 1, 1, ample); n != 1 {
		t.Errorf("%d replicas have it, want 1", n)
	}
	if got := pair.Replica.Client(t).Get(t.Context(), key).Val(); got != "1" {
		t.Errorf("the replica that has it says %q", got)
	}
	if n := counted(t, r, key, 2, 2, 50*time.Millisecond); n > 1 {
		t.Errorf("%d of one replica have it", n)
	}
	pair.Replica.Stop()
	begun := time.Now()
	if n := counted(t, r, key, 3, 1, 100*time.Millisecond); n != 0 {
		t.Errorf("%d replicas that are stopped have it", n)
	}
	if took := time.Since(begun); took < 100*time.Millisecond || took > ample {
		t.Errorf("it waited for %v, want 100ms", took)
	}
	pair.Replica.Cont()
	if n := counted(t, r, key, 4, 1, ample); n != 1 {
		t.Errorf("%d replicas have it, want 1 again", n)
	}
}

func TestAReplicatedRunLoadsAForgottenScriptAndRunsItOnce(t *testing.T) {
	t.Parallel()
	pair := testenv.NewRedisPair(t)
	client := pair.Primary.Client(t, longReads)
	r, key := redisscript.NewRunner(client, nil), testenv.Name(t)
	for i := range 4 {
		if n := counted(t, r, key, i+1, 1, ample); n != 1 {
			t.Errorf("%d replicas have it, want 1", n)
		}
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAReplicatedRunOnAServerThatDoesNotKnowTheMarkIsServedWithoutIt(t *testing.T) {
	t.Parallel()
	r, key := redisscript.NewRunner(testenv.Mini(t), nil), testenv.Name(t)
	for i := range 2 { // it has no replicas either
		if n := counted(t, r, key, i+1, 1, time.Millisecond); n != 0 {
			t.Errorf("%d replicas have it", n)
		}
	}
}

func TestAReplicatedRunThatFailsIsNotRunAgain(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	r, key := redisscript.NewRunner(client, nil), testenv.Name(t)
	bad := redisscript.New("bad", `redis.call('INCR', KEYS[1]) return redis.error_reply('ERR as asked')`)
	_, _, err := r.RunReplicated(t.Context(), 1, time.Millisecond, bad, []string{key})
	if err == nil || fmt.Sprint(err) != "script bad: ERR as asked" {
		t.Errorf("got %v", err)
	}
	if got := client.Get(t.Context(), key).Val(); got != "1" {
		t.Errorf("it ran %s times", got)
	}
}

func TestAReplicatedRunNeedsAClientOfOneMaster(t *testing.T) {
	t.Parallel()
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": testenv.Redis(t).Addr()}})
	defer func() { _ = ring.Close() }()
	if _, _, err := redisscript.NewRunner(ring, nil).RunReplicated(t.Context(), 1, time.Millisecond, count, []string{testenv.Name(t)}, 1); err == nil {
		t.Error("no error")
	}
}

// moving is a cluster, and a key whose slot is to be moved.
type moving struct {
	t        *testing.T
	cluster  *testenv.RedisCluster
	runner   *redisscript.Runner
	key      string
	from, to *testenv.RedisServer
}

func newMoving(t *testing.T, cluster *testenv.RedisCluster) *moving {
	t.Helper()
	m := &moving{t: t, cluster: cluster, runner: redisscript.NewRunner(cluster.Client(t), nil), key: testenv.Name(t)}
	m.from = cluster.Owner(t, m.slot())
	for _, node := range cluster.Nodes() {
		if node != m.from {
			m.to = node
		}
	}
	counted(t, m.runner, m.key, 1, 1, time.Millisecond)
	return m
}

func (m *moving) slot() int { return testenv.RedisSlot(m.key) }

// awaitRefusals waits until the old node has refused so many commands in that way.
func (m *moving) awaitRefusals(kind string, want int) {
	m.t.Helper()
	client := m.from.Client(m.t)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		var n int
		_, behind, _ := strings.Cut(client.Info(m.t.Context(), "errorstats").Val(), "errorstat_"+kind+":count=")
		_, _ = fmt.Sscanf(behind, "%d", &n)
		if n >= want {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	m.t.Errorf("nobody was told %s", kind)
}

func TestAReplicatedRunFollowsASlotThatMoves(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t)
	t.Run("that has moved", func(t *testing.T) {
		m := newMoving(t, cluster)
		cluster.MoveSlot(t, m.slot(), m.to)
		counted(t, m.runner, m.key, 2, 1, time.Millisecond)
		m.awaitRefusals("MOVED", 1)
		counted(t, m.runner, m.key, 3, 1, time.Millisecond)
	})
	t.Run("that is on its way", func(t *testing.T) {
		m := newMoving(t, cluster)
		move := cluster.BeginMove(t, m.slot(), m.to)
		counted(t, m.runner, m.key, 2, 1, time.Millisecond) // it is still here
		move.Key(t, m.key)
		var caller sync.WaitGroup
		caller.Go(func() {
			reply, _, err := m.runner.RunReplicated(t.Context(), 1, time.Millisecond, count, []string{m.key}, 1)
			if err != nil || reply != int64(3) {
				t.Errorf("got %v, %v; want 3", reply, err)
			}
		})
		m.awaitRefusals("ASK", 1)
		move.Finish(t)
		caller.Wait()
		counted(t, m.runner, m.key, 4, 1, time.Millisecond)
	})
	t.Run("that does not arrive", func(t *testing.T) {
		m := newMoving(t, cluster)
		move := cluster.BeginMove(t, m.slot(), m.to)
		move.Key(t, m.key)
		if reply, _, err := m.runner.RunReplicated(t.Context(), 1, time.Millisecond, count, []string{m.key}, 1); !redis.HasErrorPrefix(err, "ASK") {
			t.Errorf("got %v, %v; want a refusal", reply, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if reply, _, err := m.runner.RunReplicated(ctx, 1, time.Millisecond, count, []string{m.key}, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, %v; want the end of the context", reply, err)
		}
		move.Finish(t)
		counted(t, m.runner, m.key, 2, 1, time.Millisecond)
	})
}

func TestAReplicatedRunEndsWithItsContextThoughTheServerIsFrozen(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	// The client is as go-redis makes it: its own calls do not obey contexts.
	r := redisscript.NewRunner(server.Client(t, func(o *redis.Options) { o.ContextTimeoutEnabled = false }), nil)
	key := testenv.Name(t)
	counted(t, r, key, 1, 0, time.Millisecond)
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	arg := []byte("1")
	_, _, err := r.RunReplicated(ctx, 0, time.Millisecond, count, []string{key}, arg)
	arg[0] = '9' // the caller goes on with its own, though the client may still send the call
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coalesce.ErrInFlight) {
		t.Errorf("got %v", err)
	}
	if end, _ := ctx.Deadline(); time.Since(end) > 2*time.Second {
		t.Errorf("the caller came back %v too late", time.Since(end))
	}
	server.Cont()
	if _, _, err := r.RunReplicated(ctx, 0, time.Millisecond, count, []string{key}, 1); !errors.Is(err, coalesce.ErrNotSent) {
		t.Errorf("with a context that has ended: %v", err)
	}
}
