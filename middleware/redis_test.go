package middleware_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/redisidem"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/ratelimit/redislimit"
)

func redisStore(t testing.TB, client redis.UniversalClient) *redisidem.Store {
	t.Helper()
	store, err := redisidem.New(client, &redisidem.Options{Prefix: testenv.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func redisLimiter(t testing.TB, client redis.UniversalClient, timeout time.Duration) *redislimit.Limiter {
	t.Helper()
	limiter, err := redislimit.New(client, &redislimit.Options{Prefix: testenv.Name(t), Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return limiter
}

func TestRedis_OneOf100SimultaneousRequestsOverTwoProcessesRuns(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		store := redisStore(t, client)
		var runs atomic.Int64
		handler := func(w http.ResponseWriter, r *http.Request) {
			runs.Add(1)
			created(w, r)
		}
		// Two keepers share nothing but Redis and the hash key.
		web := []*rig{
			newRig(t, rigOptions{store: store, keeper: &idempotency.Options{StoreTimeout: patience}}, handler),
			newRig(t, rigOptions{store: store, keeper: &idempotency.Options{StoreTimeout: patience}}, handler),
		}
		var wg sync.WaitGroup
		var made, inFlight, replayed atomic.Int64
		for i := range 100 {
			wg.Go(func() {
				w := web[i%2].do(request("k", "b"))
				switch {
				case w.Code == 201 && w.Header().Get("Idempotent-Replayed") == "true":
					replayed.Add(1)
				case w.Code == 201:
					made.Add(1)
				case w.Code == 409 && strings.Contains(w.Body.String(), "in-flight"):
					inFlight.Add(1)
				}
			})
		}
		wg.Wait()
		if runs.Load() != 1 || made.Load() != 1 || made.Load()+inFlight.Load()+replayed.Load() != 100 {
			t.Fatalf("%d runs, %d made, %d in flight, %d replayed", runs.Load(), made.Load(), inFlight.Load(), replayed.Load())
		}
	})
}

func TestRedis_FrozenServerFailsClosedWithinTheBoundAndRecovers(t *testing.T) {
	server := testenv.NewRedis(t)
	client := server.Client(t)
	const bound = 250 * time.Millisecond
	g := newRig(t, rigOptions{store: redisStore(t, client), keeper: &idempotency.Options{StoreTimeout: bound}}, created)
	limit := func(down middleware.StoreDown) http.Handler {
		return middleware.RateLimit(redisLimiter(t, client, bound), someTakes, down, nil)(g.handler)
	}
	routes := map[string]http.Handler{"limit closed": limit(middleware.FailClosed), "limit open": limit(middleware.FailOpen), "claim": g.handler}
	g.wantAnswer(g.do(request("before", "b")), 201, "made b", false)

	server.Stop()
	var wg sync.WaitGroup
	for name, route := range routes {
		for i := range 20 {
			wg.Go(func() {
				start, w := time.Now(), httptest.NewRecorder()
				route.ServeHTTP(w, request(fmt.Sprint("k", i), "b"))
				if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "urn:firstcome:unavailable") {
					t.Errorf("%s: %d %s", name, w.Code, w.Body)
				}
				if took := time.Since(start); took > 2*bound+2*time.Second {
					t.Errorf("%s: answered after %v", name, took)
				}
			})
		}
	}
	wg.Wait()
	g.wantRuns(1)
	server.Cont()

	// The connections that were cut are made anew; no restart is needed.
	for deadline := time.Now().Add(patience); ; {
		w := httptest.NewRecorder()
		routes["limit closed"].ServeHTTP(w, request("after", "b"))
		if w.Code == 201 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	g.wantAnswer(g.do(request("before", "b")), 201, "made b", true)
}

func TestRedis_RetryAfterIsLongEnough(t *testing.T) {
	limiter := redisLimiter(t, testenv.Mini(t), patience)
	hour := ratelimit.Limit{Name: "hour", Quota: 1, Window: time.Hour}
	h := middleware.RateLimit(limiter, func(r *http.Request) ([]ratelimit.Take, error) {
		return []ratelimit.Take{{Limit: hour, Key: r.Header.Get("X-Buyer"), Cost: 1}}, nil
	}, middleware.FailClosed, nil)(http.HandlerFunc(created))
	for i, want := range []int{201, 429, 429} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("", ""))
		if w.Code != want {
			t.Fatalf("request %d: %d %s", i, w.Code, w.Body)
		}
		if want != 429 {
			continue
		}
		var retry int64
		_, _ = fmt.Sscan(w.Header().Get("Retry-After"), &retry)
		_, limit := members(t, w.Header(), "RateLimit")
		if retry < limit["hour"]["t"] || limit["hour"]["t"] < 3500 || limit["hour"]["r"] != 0 {
			t.Fatalf("Retry-After %d, RateLimit %q", retry, w.Header().Get("RateLimit"))
		}
	}
}
