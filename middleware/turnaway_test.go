package middleware_test

import (
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
