package redisidem_test

import (
	"context"
	"fmt"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/redisidem"
)

// The server here is miniredis, an embedded stand-in.
func Example() {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = client.Close() }()

	store, err := redisidem.New(client, nil)
	if err != nil {
		panic(err)
	}
	keeper, err := idempotency.New(store, []byte("32 secret bytes, from your vault"), idempotency.Rerun, nil)
	if err != nil {
		panic(err)
	}
	for range 2 {
		result, err := keeper.Do(context.Background(), "buyer-7", "key-1", []byte("1 ticket"),
			func(context.Context, *idempotency.Claim) ([]byte, error) { return []byte("order 1"), nil })
		fmt.Printf("%s %v %v\n", result.Bytes, result.Replayed, err)
	}
	// Output:
	// order 1 false <nil>
	// order 1 true <nil>
}
