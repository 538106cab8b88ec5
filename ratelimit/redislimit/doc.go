// Package redislimit keeps the buckets of package ratelimit in Redis.
//
//	limiter, err := redislimit.New(client, nil)
//	…
//	decision, err := limiter.Take(ctx, ratelimit.Take{Limit: perBuyer, Key: buyer, Cost: 1})
//
// On a single server, also behind Sentinel, one decision over any number of
// limits is one script and one round trip, which goroutines that call at the
// same time share. A bucket is one short string, and expires when it is empty.
//
// # Limits
//
// On Redis Cluster, or over a Ring, the buckets of one decision live on
// different servers. Then each is asked in a trip of its own, in the order
// given, and when one denies, what the earlier ones took is given back. For
// that moment others see it as taken; a refund that is lost stays charged.
//
// A re-sent take, after a lost reply, may be charged twice: never too little.
// Scripts run on masters only, so no decision reads a stale replica.
package redislimit
