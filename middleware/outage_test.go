package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/internal/testenv/faultrows"
	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/ratelimit"
)

// front is a middleware on Redis that fails open or closed.
type front struct {
	name    string
	open    bool
	handler http.Handler
	// guarded tells that an answer went through the store.
	guarded func(*httptest.ResponseRecorder) bool
}

var errAnswer = errors.New("another answer")

// ask sends the i-th request, a caller and a key of its own.
func (f front) ask(ctx context.Context, i int) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, request(fmt.Sprint("key", i), "b", header("X-Buyer", fmt.Sprint("buyer", i))).WithContext(ctx))
	return w
}

// call fails unless the answer is one of the outage's: bare where the front
// fails open, 503 where it fails closed.
func (f front) call(ctx context.Context, i int) error {
	w := f.ask(ctx, i)
	if want := map[bool]int{true: http.StatusCreated, false: http.StatusServiceUnavailable}[f.open]; w.Code != want || f.guarded(w) {
		return fmt.Errorf("%w: %d %s", errAnswer, w.Code, w.Body)
	}
	return nil
}

// fronts are the two middlewares, each failing open and closed.
func fronts(t *testing.T, client redis.UniversalClient) []front {
	t.Helper()
	limit := func(down middleware.StoreDown) http.Handler {
		return middleware.RateLimit(redisLimiter(t, client, 0), million, down, nil)(http.HandlerFunc(created))
	}
	claim := func(open bool) http.Handler {
		return newRig(t, rigOptions{
			store: redisStore(t, client), route: &middleware.IdempotencyOptions{FailOpen: open},
		}, created).handler
	}
	counted := func(w *httptest.ResponseRecorder) bool { return w.Header().Get("RateLimit") != "" }
	claimed := func(w *httptest.ResponseRecorder) bool {
		return w.Code == http.StatusCreated && w.Header().Get("Idempotency-Bypassed") == ""
	}
	return []front{
		{"limit fails open", true, limit(middleware.FailOpen), counted},
		{"limit fails closed", false, limit(middleware.FailClosed), counted},
		{"claim fails open", true, claim(true), claimed},
		{"claim fails closed", false, claim(false), claimed},
	}
}

// million lets practically any number of requests of one buyer pass.
func million(r *http.Request) ([]ratelimit.Take, error) {
	buyer, err := buyer(r)
	return []ratelimit.Take{{Limit: ratelimit.Limit{Name: "buyer", Quota: 1_000_000, Window: time.Hour}, Key: buyer, Cost: 1}}, err
}

func TestOutage_AfterItsFirstSecondARequestWaitsUnder5ms(t *testing.T) {
	for name, outage := range map[string]struct{ begin, end func(*testenv.RedisServer) }{
		"Refused": {func(s *testenv.RedisServer) { s.Kill() }, func(s *testenv.RedisServer) { s.Restart() }},
		"Frozen":  {func(s *testenv.RedisServer) { s.Stop() }, func(s *testenv.RedisServer) { s.Cont() }},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 4 {
				server := testenv.NewRedis(t)
				f := fronts(t, server.Client(t))[i]
				t.Run(f.name, func(t *testing.T) {
					t.Parallel()
					goThrough(t, f, func() { outage.begin(server) }, func() { outage.end(server) })
				})
			}
		})
	}
}

// goThrough measures a front before, in and after an outage.
func goThrough(t *testing.T, f front, begin, end func()) {
	t.Helper()
	for i := range 20 {
		if w := f.ask(t.Context(), -1-i); !f.guarded(w) {
			t.Fatalf("before: %d %s", w.Code, w.Body)
		}
	}
	load := faultrows.Load{Rate: 100, Long: time.Second, Patience: time.Minute}
	before := load.Run(t.Context(), func(ctx context.Context, i int) error { f.ask(ctx, i); return nil })
	begin()
	first := load.Run(t.Context(), func(ctx context.Context, i int) error { return f.call(ctx, 1000+i) })
	later := load.Run(t.Context(), func(ctx context.Context, i int) error { return f.call(ctx, 2000+i) })
	end()
	ended := time.Now()
	for i := 3000; !f.guarded(f.ask(t.Context(), i)); i++ {
		if time.Since(ended) > 5*time.Second {
			t.Fatal("the store has been back for 5 s, and requests still pass it by")
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("before: %v\nfirst second: %v\nafterwards: %v\nguarded again %v after the end", before, first, later, time.Since(ended))
	if later.Failed > 0 {
		t.Errorf("%d of %d requests got another answer: %v", later.Failed, later.Calls, later.First)
	}
	if most := 5*time.Millisecond + 4*before.Mean; later.Mean > most {
		t.Errorf("a request waited %v on the mean, want %v at most", later.Mean, most)
	}
}

// What clients can bring about by themselves must not switch the guards off for
// the others.
func TestOutage_NoClientCanFeignOne(t *testing.T) {
	server := testenv.NewRedis(t)
	client := server.Client(t)
	left, leave := context.WithCancel(t.Context())
	leave()
	for _, f := range fronts(t, client) {
		for what, feign := range map[string]func(t *testing.T, i int){
			"a caller who left": func(_ *testing.T, i int) { f.ask(left, i) },
			"an impatient caller": func(t *testing.T, i int) {
				brief, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond)
				defer cancel()
				f.ask(brief, i)
			},
			"a bad key": func(_ *testing.T, i int) {
				f.handler.ServeHTTP(httptest.NewRecorder(), request(fmt.Sprint("key", i), "b", header("X-Buyer", strings.Repeat("b", 5000))))
			},
			"a corrupt record":   func(t *testing.T, _ int) { f.damage(t, client, "set") },
			"a record of a list": func(t *testing.T, _ int) { f.damage(t, client, "rpush") },
		} {
			t.Run(f.name+"/"+what, func(t *testing.T) {
				client.FlushDB(t.Context())
				for i := range 100 {
					feign(t, i)
				}
				for i := range 10 {
					if w := f.ask(t.Context(), 5000+i); !f.guarded(w) {
						t.Fatalf("request %d afterwards: %d %v %s", i, w.Code, w.Header(), w.Body)
					}
				}
			})
		}
	}
}

// damage has a request meet a record with other bytes, or of another type.
func (f front) damage(t *testing.T, client *redis.Client, command string) {
	t.Helper()
	f.ask(t.Context(), 1)
	for _, key := range client.Keys(t.Context(), "*").Val() {
		client.Del(t.Context(), key)
		if err := client.Do(t.Context(), command, key, "\xff no record").Err(); err != nil {
			t.Fatal(err)
		}
	}
	f.ask(t.Context(), 1)
}
