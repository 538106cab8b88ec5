package redisscript_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/redisscript"
	"github.com/firstcome/firstcome/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(m), testenv.LeakOptions()...) }

var (
	count = redisscript.New("count", `return redis.call('INCRBY', KEYS[1], ARGV[1])`)
	fail  = redisscript.New("fail", `return redis.error_reply('ERR as asked')`)
	echo  = redisscript.New("echo", `return ARGV[1]`)
	void  = redisscript.New("void", `return nil`)
	read  = redisscript.New("read", `return redis.call('GET', KEYS[1])`, "no-writes")
	free  = redisscript.New("free", `return redis.call('DEL', KEYS[1])`, "allow-oom")
)

func run(t *testing.T, r *redisscript.Runner, s *redisscript.Script, key string, args ...any) any {
	t.Helper()
	reply, err := r.Run(t.Context(), s, []string{key}, args...)
	if err != nil {
		t.Fatalf("%v: %v", s, err)
	}
	return reply
}

func TestAScriptThatTheServerForgotIsLoadedAndRunsOnce(t *testing.T) {
	t.Parallel()
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		r, key := redisscript.NewRunner(client, nil), testenv.Name(t)
		for i := range 3 {
			if got := run(t, r, count, key, 1); got != int64(i+1) {
				t.Fatalf("got %v, want %d", got, i+1)
			}
			if i == 1 {
				if err := client.ScriptFlush(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func TestRepliesComeAsTheyAre(t *testing.T) {
	t.Parallel()
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		r := redisscript.NewRunner(client, nil)
		if got := run(t, r, echo, "k", "text"); got != "text" {
			t.Errorf("got %v", got)
		}
		if got := run(t, r, void, "k"); got != nil {
			t.Errorf("got %v", got)
		}
		if got := run(t, r, read, testenv.Name(t)); got != nil {
			t.Errorf("got %v", got)
		}
	})
}

// late is a private server through a dialer, with one slow reply planned, so
// that what is called meanwhile shares the next trip.
type late struct {
	*redisscript.Runner
	dialer *faulty.Dialer
	truth  *redis.Client
	trips  atomic.Int64
	key    string
}

// DialHook leaves dialing as it is.
func (l *late) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook counts a trip of one command.
func (l *late) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		l.trips.Add(1)
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook counts a trip of many.
func (l *late) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		l.trips.Add(1)
		return next(ctx, cmds)
	}
}

func newLate(t *testing.T) *late {
	t.Helper()
	server := testenv.NewRedis(t)
	l := &late{dialer: faulty.NewDialer(), truth: server.Client(t), key: testenv.Name(t)}
	client := server.Client(t, func(o *redis.Options) { o.Dialer = l.dialer.DialContext })
	client.AddHook(l)
	l.Runner = redisscript.NewRunner(client, nil)
	return l
}

// together calls f for 0 to n-1 so that all but the first share a trip.
func (l *late) together(t *testing.T, n int, f func(i int)) {
	t.Helper()
	slow := l.dialer.DelayReply(1, 300*time.Millisecond, faulty.Contains("eval"))
	var all sync.WaitGroup
	all.Go(func() { f(0) })
	slow.MustFire(t)
	for i := 1; i < n; i++ {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

func TestConcurrentCallersShareATrip(t *testing.T) {
	t.Parallel()
	l := newLate(t)
	for range 5 { // it learns that the server is near
		run(t, l.Runner, count, l.key, 0)
	}
	before := l.trips.Load()
	l.together(t, 100, func(int) {
		if _, err := l.Run(t.Context(), count, []string{l.key}, 1); err != nil {
			t.Errorf("got %v", err)
		}
	})
	if got := l.truth.Get(t.Context(), l.key).Val(); got != "100" {
		t.Errorf("the count is %s, want 100", got)
	}
	if n := l.trips.Load() - before; n > 10 {
		t.Errorf("100 calls took %d trips", n)
	}
}

func TestAForgottenScriptInASharedTripIsLoadedAndEachCallRunsOnce(t *testing.T) {
	t.Parallel()
	l := newLate(t)
	run(t, l.Runner, count, l.key, 0)
	seen := make([]bool, 50)
	var mu sync.Mutex
	l.together(t, len(seen), func(i int) {
		if i == 1 {
			l.truth.ScriptFlush(t.Context())
		}
		reply, err := l.Run(t.Context(), count, []string{l.key}, 1)
		if err != nil {
			t.Errorf("got %v", err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		seen[reply.(int64)-1] = true
	})
	for i, was := range seen {
		if !was {
			t.Errorf("nobody heard %d", i+1)
		}
	}
	if got := l.truth.Get(t.Context(), l.key).Val(); got != "50" {
		t.Errorf("the count is %s, want 50", got)
	}
}

func TestEachCallOfASharedTripHasItsOwnError(t *testing.T) {
	t.Parallel()
	l := newLate(t)
	l.truth.LPush(t.Context(), l.key+"list", "x")
	l.together(t, 30, func(i int) {
		script, key := count, l.key
		switch i % 3 {
		case 1:
			script = fail
		case 2:
			key += "list"
		}
		reply, err := l.Run(t.Context(), script, []string{key}, 1)
		if (err == nil) != (i%3 == 0) {
			t.Errorf("call %d: %v, %v", i, reply, err)
		}
		var answer redis.Error
		if err != nil && (!errors.As(err, &answer) || errors.Is(err, coalesce.ErrInFlight)) {
			t.Errorf("call %d: %v is no answer of the server", i, err)
		}
	})
	if got := l.truth.Get(t.Context(), l.key).Val(); got != "10" {
		t.Errorf("the count is %s, want 10", got)
	}
}

func TestACallEndsWithItsContextThoughTheServerIsFrozen(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	client := server.Client(t, func(o *redis.Options) { o.ContextTimeoutEnabled = false })
	r, key := redisscript.NewRunner(client, nil), testenv.Name(t)
	run(t, r, count, key, 1)
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			_, err := r.Run(ctx, count, []string{key}, 1)
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coalesce.ErrInFlight) && !errors.Is(err, coalesce.ErrNotSent) {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
	if end, _ := ctx.Deadline(); time.Since(end) > 2*time.Second {
		t.Errorf("the callers came back %v too late", time.Since(end))
	}
	server.Cont()
	until(t, "it is served again", func() bool {
		_, err := r.Run(t.Context(), count, []string{key}, 1)
		return err == nil
	})
}

// until waits for something that comes about by itself.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func TestServersThatDoNotKnowTheMarkAreServedWithoutIt(t *testing.T) {
	t.Parallel()
	client := testenv.Mini(t)
	r, key := redisscript.NewRunner(client, nil), testenv.Name(t)
	for _, s := range []*redisscript.Script{count, read, free, count} {
		if _, err := r.Run(t.Context(), s, []string{key}, 1); err != nil {
			t.Errorf("%v: %v", s, err)
		}
	}
	// A script that fails is no such server: it runs once, not again without.
	bad := redisscript.New("bad", `redis.call('INCR', KEYS[1]) return 1 + nil`)
	if _, err := r.Run(t.Context(), bad, []string{key + "bad"}); err == nil {
		t.Error("no error")
	}
	if got := client.Get(t.Context(), key+"bad").Val(); got != "1" {
		t.Errorf("the failing script ran %s times", got)
	}
}

func TestAScriptThatFailsOnItsFirstRunIsNotRunAgain(t *testing.T) {
	t.Parallel()
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		r, key := redisscript.NewRunner(client, nil), testenv.Name(t)
		// The words of a compile error, but not from the compiler.
		bad := redisscript.New("bad", `redis.call('INCR', KEYS[1]) error('compile error near here')`)
		if _, err := r.Run(t.Context(), bad, []string{key}); err == nil {
			t.Error("no error")
		}
		if got := client.Get(t.Context(), key).Val(); got != "1" {
			t.Errorf("it ran %s times", got)
		}
	})
}

func TestFlagsReachTheServer(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t, "maxmemory-policy noeviction")
	client := server.Client(t)
	r, key := redisscript.NewRunner(client, nil), testenv.Name(t)
	run(t, r, count, key, 1)
	client.ConfigSet(t.Context(), "maxmemory", "1")
	if _, err := r.Run(t.Context(), count, []string{key}, 1); !redis.HasErrorPrefix(err, "OOM") {
		t.Errorf("a script that takes: %v", err)
	}
	if got := run(t, r, read, key); got != "1" {
		t.Errorf("read %v", got)
	}
	run(t, r, free, key)
	writes := redisscript.New("writes", `return redis.call('SET', KEYS[1], 'x')`, "no-writes")
	if _, err := r.Run(t.Context(), writes, []string{key}); err == nil {
		t.Error("a script without writes has written")
	}
}

func TestAnErrorNamesItsScript(t *testing.T) {
	t.Parallel()
	r := redisscript.NewRunner(testenv.Mini(t), nil)
	if _, err := r.Run(t.Context(), fail, []string{"k"}); err == nil || fmt.Sprint(err) != "script fail: ERR as asked" {
		t.Errorf("got %v", err)
	}
}
