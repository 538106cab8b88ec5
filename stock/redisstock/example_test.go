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

// embedded is a store on a stand-in for Redis, and what ends it.
func embedded() (*redisstock.Store, func()) {
	server, err := miniredis.Run()
	check(err)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	store, err := redisstock.New(client, nil, redisstock.JournalOff, nil)
	check(err)
	return store, func() {
		_ = client.Close()
		server.Close()
	}
}

// Two seats and one parking place, or none of them. The parking place is not
// wanted in the end, and is free again in the step that sells the seats.
func ExampleStore_Confirm_part() {
	store, closeAll := embedded()
	defer closeAll()
	ctx := context.Background()
	_, err := store.Open(ctx, stock.Pool{SKU: "concert", Items: []stock.Item{
		{SKU: "seat", Total: 100}, {SKU: "parking", Total: 1, Limit: 1},
	}})
	check(err)
	basket := func(buyer string) stock.Request {
		return stock.Request{
			ID: stock.NewID("concert", buyer, [16]byte{1}), SKU: "concert", Buyer: buyer,
			Lines: []stock.Line{{SKU: "seat", Quantity: 2}, {SKU: "parking", Quantity: 1}},
		}
	}
	hold, err := store.Reserve(ctx, basket("ann"))
	fmt.Println("ann:", hold.Lines, err)
	_, err = store.Reserve(ctx, basket("bob"))
	var item *stock.ItemError
	fmt.Println("bob:", errors.As(err, &item), item.SKU, errors.Is(err, stock.ErrAllHeld))

	hold, err = store.Confirm(ctx, hold.ID, stock.Line{SKU: "seat", Quantity: 2})
	fmt.Println("ann:", hold.State, hold.Lines, "given back", hold.Released, err)
	hold, err = store.Reserve(ctx, basket("bob"))
	fmt.Println("bob:", hold.Lines, err)
	// Output:
	// ann: [{seat 2} {parking 1}] <nil>
	// bob: true parking true
	// ann: sold [{seat 2}] given back [{parking 1}] <nil>
	// bob: [{seat 2} {parking 1}] <nil>
}

// A restock says by how much and on which version of the terms: nobody's change
// is lost, and a repeat changes nothing.
func ExampleStore_Adjust() {
	store, closeAll := embedded()
	defer closeAll()
	ctx := context.Background()
	levels, err := store.Open(ctx, stock.Pool{SKU: "ticket", Total: 100})
	check(err)
	more := stock.Adjustment{ID: [16]byte{1}, SKU: "ticket", Version: levels.Version, Add: []stock.Line{{Quantity: 20}}}
	for range 2 {
		levels, err = store.Adjust(ctx, more)
		fmt.Println(levels.Total, levels.Version, err)
	}
	pause := stock.Adjustment{ID: [16]byte{2}, SKU: "ticket", Version: 1, Pause: true}
	_, err = store.Adjust(ctx, pause)
	fmt.Println(err)
	// Output:
	// 120 2 <nil>
	// 120 2 <nil>
	// stock: terms were changed meanwhile, version is 2
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
