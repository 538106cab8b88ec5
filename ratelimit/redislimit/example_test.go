package redislimit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/ratelimit/redislimit"
)

// Two limits in one decision and one round trip. The server here is miniredis,
// an embedded stand-in.
func Example() {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = client.Close() }()

	limiter, err := redislimit.New(client, nil)
	if err != nil {
		panic(err)
	}
	perBuyer := ratelimit.Limit{Name: "buyer", Quota: 2, Window: time.Hour}
	overall := ratelimit.Limit{Name: "shop", Quota: 1000, Window: time.Hour}
	for range 3 {
		d, err := limiter.Take(context.Background(),
			ratelimit.Take{Limit: perBuyer, Key: "buyer-7", Cost: 1},
			ratelimit.Take{Limit: overall, Key: "all", Cost: 1})
		if err != nil {
			panic(err)
		}
		fmt.Println(d.Allowed, d.Statuses[0].Remaining, d.Statuses[1].Remaining, d.RetryAfter.Round(time.Minute))
	}
	// Output:
	// true 1 999 0s
	// true 0 998 0s
	// false 0 998 30m0s
}
