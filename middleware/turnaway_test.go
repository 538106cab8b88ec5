package middleware_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/stock"
)

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestIdempotency_ALoserWhoseKeyWasNeverSeenIsTurnedAwayWithoutAClaim(t *testing.T) {
	store := idemtest.NewMemory(nil)
	keeper, err := idempotency.New(store, hashKey, idempotency.Rerun, nil)
	if err != nil {
		t.Fatal(err)
	}
	soldOut, ran := false, 0
	once := middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{
		Turnaway: func(_ *http.Request, body []byte) error {
			if soldOut && string(body) == "one" {
				return stock.ErrSoldOut
			}
			return nil
		},
	})
	h := once(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		ran++
		w.WriteHeader(http.StatusCreated)
	}))
	if got := serve(h, request("winner", "one", header("X-Buyer", "ann"))); got.Code != http.StatusCreated {
		t.Fatalf("winner: %d", got.Code)
	}
	soldOut = true
	if got := serve(h, request("loser", "one", header("X-Buyer", "bob"))); got.Code != http.StatusConflict || store.Len() != 1 {
		t.Errorf("loser: %d, %d records", got.Code, store.Len())
	}
	if got := serve(h, request("winner", "one", header("X-Buyer", "ann"))); got.Code != http.StatusCreated || got.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("the winner's repeat: %d", got.Code)
	}
	if got := serve(h, request("loser", "another", header("X-Buyer", "bob"))); got.Code != http.StatusCreated || ran != 2 {
		t.Errorf("a request that is not turned away: %d, %d runs", got.Code, ran)
	}
}

func TestIdempotency_AdmissionIsAskedForAllButThoseWhoAreTurnedAway(t *testing.T) {
	store := idemtest.NewMemory(nil)
	keeper, err := idempotency.New(store, hashKey, idempotency.Rerun, nil)
	if err != nil {
		t.Fatal(err)
	}
	soldOut, full, asked, ran, status := false, false, 0, 0, http.StatusCreated
	once := middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{
		Turnaway: func(*http.Request, []byte) error {
			if soldOut {
				return stock.ErrSoldOut
			}
			return nil
		},
		Admission: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				if full {
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				next.ServeHTTP(w, r)
			})
		},
	})
	h := once(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		ran++
		w.WriteHeader(status)
	}))
	want := func(name, key string, code, askedSoFar, ranSoFar int) {
		t.Helper()
		if got := serve(h, request(key, "body", header("X-Buyer", "ann"))); got.Code != code || asked != askedSoFar || ran != ranSoFar {
			t.Fatalf("%s: %d, asked %d, ran %d; want %d, %d, %d", name, got.Code, asked, ran, code, askedSoFar, ranSoFar)
		}
	}
	want("admitted", "one", http.StatusCreated, 1, 1)
	want("its repeat", "one", http.StatusCreated, 2, 1)
	full = true
	want("refused", "two", http.StatusTooManyRequests, 3, 1)
	if store.Len() != 1 {
		t.Errorf("a refused request has claimed its key: %d records", store.Len())
	}
	soldOut = true
	want("turned away", "three", http.StatusConflict, 3, 1)
	want("the winner's repeat", "one", http.StatusCreated, 3, 1)

	// A key that was seen and released is claimed by the look. If it is refused
	// then, it is free again.
	soldOut, full, status = false, false, http.StatusTooManyRequests
	want("released", "four", http.StatusTooManyRequests, 4, 2)
	soldOut, full, status = true, true, http.StatusCreated
	want("seen, and refused", "four", http.StatusTooManyRequests, 5, 2)
	full = false
	want("seen, and admitted", "four", http.StatusCreated, 6, 3)
}

func TestIdempotency_AdmissionThatLosesTheContextIsABug(t *testing.T) {
	keeper, err := idempotency.New(idemtest.NewMemory(nil), hashKey, idempotency.Rerun, nil)
	if err != nil {
		t.Fatal(err)
	}
	once := middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{
		Admission: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r.WithContext(context.Background())) //nolint:contextcheck // the bug
			})
		},
	})
	defer func() {
		if recover() == nil {
			t.Error("nobody notices")
		}
	}()
	serve(once(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), request("one", "body", header("X-Buyer", "ann")))
}
