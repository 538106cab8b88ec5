// Command quickstart sells two tickets to three buyers, on an embedded Redis.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/redisidem"
	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

func main() {
	client := redis.NewClient(&redis.Options{Addr: must(miniredis.Run()).Addr()})
	tickets := must(redisstock.New(client, nil, redisstock.JournalOff, nil))
	must(tickets.Open(context.Background(), stock.Pool{SKU: "ticket", Total: 2, Limit: 1}))
	keeper := must(idempotency.New(must(redisidem.New(client, nil)), []byte(rand.Text()+rand.Text()), idempotency.Rerun, nil))

	buyer := func(r *http.Request) (string, error) { return r.Header.Get("X-Buyer"), nil } //nolint:unparam // yours: who is logged in
	buy := func(w http.ResponseWriter, r *http.Request) {
		who, _ := buyer(r)
		claim, _ := idempotency.FromContext(r.Context())
		hold, err := tickets.Reserve(r.Context(), stock.Request{
			ID: stock.NewID("ticket", who, claim.ID()), SKU: "ticket", Buyer: who, Quantity: 1, First: claim.First(),
		})
		if err != nil {
			middleware.WriteError(w, r, err)
			return
		}
		fmt.Fprintf(w, "%s for %s", hold.State, who)
	}
	shop := middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{Required: true})(http.HandlerFunc(buy))
	for _, who := range []string{"ann", "bob", "cay", "ann"} { // ann sends hers twice
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set("X-Buyer", who)
		r.Header.Set("Idempotency-Key", "key-of-"+who)
		w := httptest.NewRecorder()
		shop.ServeHTTP(w, r)
		fmt.Printf("%d replayed=%t %s\n", w.Code, w.Header().Get("Idempotent-Replayed") == "true", w.Body)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
