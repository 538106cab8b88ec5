package redisstock_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// One ticket, two buyers: the second hears that it is held, and, once it is
// paid for, that it is sold. A retry of the first finds its own reservation.
func Example() {
	server, err := miniredis.Run()
	check(err)
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = client.Close() }()

	ctx := context.Background()
	store, err := redisstock.New(client, nil, redisstock.JournalOff, nil)
	check(err)
	_, err = store.Open(ctx, stock.Pool{SKU: "ticket", Total: 1, Limit: 1})
	check(err)

	request := func(buyer string, claim byte) stock.Request {
		return stock.Request{ID: stock.NewID("ticket", buyer, [16]byte{claim}), SKU: "ticket", Buyer: buyer, Quantity: 1}
	}
	hold, err := store.Reserve(ctx, request("ann", 1))
	fmt.Println("ann:", hold.State, err)
	_, err = store.Reserve(ctx, request("bob", 2))
	fmt.Println("bob: all held", errors.Is(err, stock.ErrAllHeld))

	_, err = store.Confirm(ctx, hold.ID)
	check(err)
	again, err := store.Reserve(ctx, request("ann", 1))
	fmt.Println("ann again:", again.State, again.Repeated, err)
	_, err = store.Reserve(ctx, request("bob", 2))
	fmt.Println("bob:", err)

	levels, err := store.Levels(ctx, "ticket")
	fmt.Printf("%+v %v\n", levels, err)
	// Output:
	// ann: held <nil>
	// bob: all held true
	// ann again: sold true <nil>
	// bob: stock: sold out
	// {SKU:ticket Total:1 Free:0 Held:0 Sold:1 Over:0 Paused:false Version:1 Items:[]} <nil>
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
