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
// # The client
//
// Set ContextTimeoutEnabled, or a call that hangs keeps its connection for the
// client's ReadTimeout (New warns). ReadTimeout, WriteTimeout and DialTimeout of 1
// to 2 s suit. At most half of PoolSize is taken by calls that hang. A Dialer with
// TCP_USER_TIMEOUT finds connections that died without a word; the shop in
// examples has one. With MaxRetries -1 nothing is sent twice.
//
// # When Redis is away
//
// A dead connection costs its callers about a second, and nobody else: they are
// asked again on another. A server that does not answer several times in a row is
// asked no more until a probe finds it back; meanwhile each call fails at once,
// with an error that wraps [ratelimit.ErrUnavailable]. On a Cluster that holds
// for each node by itself.
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
