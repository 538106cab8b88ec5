// Package ratelimit decides whether one more event may happen now.
//
// The promise: over all processes that share a store, a limit admits at most
// Burst events at once and Quota per Window after that; an attempt under
// several limits is charged to all of them or to none; a refused one is charged
// to none.
//
// The smallest whole use (for HTTP see package middleware):
//
//	perBuyer := ratelimit.Limit{Name: "buyer", Quota: 20, Window: time.Second}
//	overall := ratelimit.Limit{Name: "shop", Quota: 50_000, Window: time.Second}
//	…
//	decision, err := limiter.Take(ctx,
//		ratelimit.Take{Limit: perBuyer, Key: buyer, Cost: 1},
//		ratelimit.Take{Limit: overall, Key: "all", Cost: 1})
//	if err == nil && !decision.Allowed {
//		wait(decision.RetryAfter)
//	}
//
// # How it counts
//
// By the generic cell rate algorithm: each key has a bucket that holds Burst
// units and drains by one each Window/Quota. There is no window edge at which
// twice the quota passes. What any such limiter does admit is a burst plus what
// drains meanwhile: 17 per 30 s with a burst of 17 passes up to 33 in the first
// 30 s, and 17 per 30 s from then on. Where no Window whatsoever may see more
// than Quota, set [Limit.Strict].
//
// # Limits
//
//   - The store's clock decides. Set back, it delays nobody by more than the
//     time one bucket takes to drain; set forward, it gives at most one burst.
//   - A take whose reply is lost may have been charged: too much, never too
//     little.
//   - What a store loses, the buckets forget: each key may burst once more.
package ratelimit
