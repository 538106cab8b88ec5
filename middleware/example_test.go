package middleware_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"time"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/stock"
)

// post sends one request and prints what a client would see.
func post(h http.Handler, key, body string) {
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body))
	r.Header.Set("X-Buyer", "buyer-7")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Body, " ", w.Header().Get("Idempotent-Replayed"))))
}

// A retry gets the answer of the first try. In a service the store is
// redisidem's, and the scope comes from real authentication.
func ExampleIdempotency() {
	keeper, err := idempotency.New(idemtest.NewMemory(nil), []byte("32 secret bytes, from your vault"), idempotency.Rerun, nil)
	if err != nil {
		panic(err)
	}
	buyer := func(r *http.Request) (string, error) {
		if name := r.Header.Get("X-Buyer"); name != "" {
			return name, nil
		}
		return "", errors.New("not signed in")
	}
	orders := 0
	place := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		orders++
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, "order %d", orders)
	})
	h := middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{Required: true})(place)

	post(h, "key-1", "1 ticket")
	post(h, "key-1", "1 ticket")
	post(h, "key-1", "9 tickets")
	post(h, "", "1 ticket")
	// Output:
	// 201 order 1
	// 201 order 1 true
	// 422 {"status":422,"title":"This Idempotency-Key was used with another request.","type":"urn:firstcome:key-reused"}
	// 400 {"status":400,"title":"This request needs an Idempotency-Key header.","type":"urn:firstcome:key-missing"}
}

// What a handler has in hand becomes the right answer in one line.
func ExampleWriteError() {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		middleware.WriteError(w, r, fmt.Errorf("reserve: %w", &stock.LimitError{Remaining: 1}))
	})
	post(h, "", "")
	// Output:
	// 409 {"remaining":1,"status":409,"title":"This buyer's limit is reached.","type":"urn:firstcome:buyer-limit"}
}

// Limits by buyer and by address. The address here is the connection's, which
// is right where no proxy stands in front. Behind one it is the proxy's, and
// then a library that knows which proxies you trust has to say whose the request
// is: chi's ClientIP middleware (in its newer versions) or realclientip-go.
// Never read X-Forwarded-For yourself: clients send it too.
func ExampleRateLimit() {
	perBuyer := ratelimit.Limit{Name: "buyer", Quota: 20, Window: time.Second}
	perAddress := ratelimit.Limit{Name: "address", Quota: 200, Window: time.Second}
	takes := func(r *http.Request) ([]ratelimit.Take, error) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			return nil, err // answered with 403, never counted in one bucket for all
		}
		return []ratelimit.Take{
			{Limit: perBuyer, Key: r.Header.Get("X-Buyer"), Cost: 1},
			{Limit: perAddress, Key: ratelimit.AddrKey(peer.Addr()), Cost: 1},
		}, nil
	}
	limiter := fakeLimiter{decision: ratelimit.Decision{ // in a service: redislimit.New(client, nil)
		RetryAfter: 50 * time.Millisecond,
		Statuses: []ratelimit.Status{
			{Take: ratelimit.Take{Limit: perBuyer}, RetryAfter: 50 * time.Millisecond},
			{Take: ratelimit.Take{Limit: perAddress}, Allowed: true, Remaining: 150},
		},
	}}
	h := middleware.RateLimit(limiter, takes, middleware.FailClosed, nil)(http.NotFoundHandler())
	post(h, "", "")
	// Output:
	// 429 {"status":429,"title":"Request cannot be satisfied as assigned quota has been exceeded","type":"https://iana.org/assignments/http-problem-types#quota-exceeded","violated-policies":["buyer"]}
}
