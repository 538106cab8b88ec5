package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/stock"
)

// discard is a ResponseWriter that costs nothing.
type discard struct {
	h      http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// loser is the handler of most requests in a sale.
func loser(w http.ResponseWriter, r *http.Request) { middleware.WriteError(w, r, stock.ErrSoldOut) }

func winner(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", "/orders/1")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte(`{"order_id":"1","reservation_id":"1","status":"held"}`))
}

func protect(b testing.TB, store idempotency.Store, h http.HandlerFunc) http.Handler {
	b.Helper()
	keeper, err := idempotency.New(store, hashKey, idempotency.Rerun, &idempotency.Options{StoreTimeout: patience})
	if err != nil {
		b.Fatal(err)
	}
	return middleware.Idempotency(keeper, buyer, nil)(h)
}

// load sends requests with new keys from n goroutines a core.
func load(b *testing.B, h http.Handler, n, want int) {
	b.Helper()
	var next atomic.Int64
	b.SetParallelism(n)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		template := httptest.NewRequest(http.MethodPost, "/orders", nil)
		for pb.Next() {
			id := strconv.FormatInt(next.Add(1), 10)
			r := *template
			r.Header = http.Header{"X-Buyer": {"buyer-" + id}, "Idempotency-Key": {"key-" + id}}
			r.Body, r.ContentLength = http.NoBody, 0
			w := discard{h: http.Header{}}
			h.ServeHTTP(&w, &r)
			if w.status != want {
				b.Errorf("status %d", w.status)
				return
			}
		}
	})
}

func BenchmarkIdempotency(b *testing.B) {
	b.Run("bare/loser", func(b *testing.B) { load(b, http.HandlerFunc(loser), 1, 409) })
	b.Run("bare/winner", func(b *testing.B) { load(b, http.HandlerFunc(winner), 1, 201) })
	b.Run("memory/loser", func(b *testing.B) { load(b, protect(b, idemtest.NewMemory(nil), loser), 1, 409) })
	b.Run("memory/winner", func(b *testing.B) { load(b, protect(b, idemtest.NewMemory(nil), winner), 1, 201) })
	b.Run("redis/loser/500-callers", func(b *testing.B) {
		load(b, protect(b, redisStore(b, testenv.Redis(b).Client(b)), loser), 250, 409)
	})
	b.Run("redis/winner/500-callers", func(b *testing.B) {
		load(b, protect(b, redisStore(b, testenv.Redis(b).Client(b)), winner), 250, 201)
	})
}

func BenchmarkRateLimit(b *testing.B) {
	byBuyer := ratelimit.Limit{Name: "buyer", Quota: 20, Window: time.Second}
	overall := ratelimit.Limit{Name: "shop", Quota: 1_000_000, Window: time.Second}
	one := func(r *http.Request) ([]ratelimit.Take, error) {
		return []ratelimit.Take{{Limit: byBuyer, Key: r.Header.Get("X-Buyer"), Cost: 1}}, nil
	}
	two := func(r *http.Request) ([]ratelimit.Take, error) {
		return []ratelimit.Take{
			{Limit: byBuyer, Key: r.Header.Get("X-Buyer"), Cost: 1},
			{Limit: overall, Key: "all", Cost: 1},
		}, nil
	}
	fake := allowedBy(status(byBuyer, true, 19, 0, 50*time.Millisecond))
	h := http.HandlerFunc(loser)
	b.Run("fake", func(b *testing.B) { load(b, middleware.RateLimit(fake, one, middleware.FailOpen, nil)(h), 1, 409) })
	for name, takes := range map[string]func(*http.Request) ([]ratelimit.Take, error){"one": one, "two": two} {
		b.Run("redis/"+name+"/500-callers", func(b *testing.B) {
			limiter := redisLimiter(b, testenv.Redis(b).Client(b), patience)
			load(b, middleware.RateLimit(limiter, takes, middleware.FailClosed, nil)(h), 250, 409)
		})
	}
}

// BenchmarkServer measures a whole request over a real connection, so that the
// part of the middleware in it can be seen.
func BenchmarkServer(b *testing.B) {
	line := func(b *testing.B, opts *middleware.IdempotencyOptions) http.Handler {
		b.Helper()
		client := testenv.Redis(b).Client(b)
		limiter := redisLimiter(b, client, patience)
		limit := middleware.RateLimit(limiter, func(r *http.Request) ([]ratelimit.Take, error) {
			return []ratelimit.Take{{Limit: perBuyer, Key: r.Header.Get("X-Buyer"), Cost: 1}}, nil
		}, middleware.FailClosed, nil)
		keeper, err := idempotency.New(redisStore(b, client), hashKey, idempotency.Rerun, &idempotency.Options{StoreTimeout: patience})
		if err != nil {
			b.Fatal(err)
		}
		return limit(middleware.Idempotency(keeper, buyer, opts)(http.HandlerFunc(loser)))
	}
	soldOut := func(*http.Request, []byte) error { return stock.ErrSoldOut }
	for name, handler := range map[string]func(*testing.B) http.Handler{
		"bare":  func(*testing.B) http.Handler { return http.HandlerFunc(loser) },
		"claim": func(b *testing.B) http.Handler { b.Helper(); return line(b, nil) },
		"turned away": func(b *testing.B) http.Handler {
			b.Helper()
			return line(b, &middleware.IdempotencyOptions{Turnaway: soldOut})
		},
	} {
		b.Run(name, func(b *testing.B) {
			server := httptest.NewServer(handler(b))
			defer server.Close()
			server.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 1000
			var next atomic.Int64
			b.SetParallelism(250)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					id := strconv.FormatInt(next.Add(1), 10)
					r, _ := http.NewRequestWithContext(b.Context(), http.MethodPost, server.URL+"/orders", strings.NewReader("{}"))
					r.Header.Set("X-Buyer", id)
					r.Header.Set("Idempotency-Key", id)
					resp, err := server.Client().Do(r)
					if err != nil {
						b.Error(err)
						return
					}
					_ = resp.Body.Close()
					if resp.StatusCode != http.StatusConflict {
						b.Errorf("status %d", resp.StatusCode)
						return
					}
				}
			})
		})
	}
}
