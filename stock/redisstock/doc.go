// Package redisstock keeps the pools of package stock on Redis: a single
// server, Sentinel or a Cluster, from Redis 6.2 on.
//
//	store, err := redisstock.New(client, ledger, redisstock.JournalOff, nil)
//	...
//	_, err = store.Open(ctx, stock.Pool{SKU: "ticket", Total: 1000, Limit: 1})
//	go store.Run(ctx) // liveness only; see Run
//
// # Promise
//
// Each method is one script call on the pool's slot, idempotent by the
// reservation's ID, with the server's clock as the only one. Requests of one
// pool that arrive while calls are under way share the next one, so a crowd costs
// one trip per batch. They are served in order of arrival where Redis is near
// (under 0.3 ms), and to within a trip where it is not; see Options.Flights.
//
// Without a ledger (nil) a hold ends by its time. With one, nothing past its
// time is freed before the ledger has agreed, in writing; see [stock.Ledger].
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
// A batch on a dead connection is sent again on another after a second, and holds
// up no other. A server that does not answer several times in a row is asked no
// more until a probe finds it back: each call is [stock.ErrBusy] at once, and
// nothing was sent. On a Cluster that holds for each node by itself.
//
// # When Redis loses its memory
//
// Every call carries the pool's epoch and the highest sequence number that
// this process has seen. A server that knows another epoch or less than that
// is refused with [stock.ErrFenced] before anything is written, until
// [Store.Rebuild] has restored the pool from the ledger; Options.AutoRebuild
// lets [Store.Run] do it. A loss that no process noticed is caught by the
// ledger alone, when a sale is made final. Without a ledger a lost pool stays
// lost.
//
// # Layout
//
// A pool is three keys that share a hash tag, which is a digest of its name: a
// hash of terms, counts and reservations by buyer, an index of expiries, and
// the journal, a stream to which each change is appended by the step that makes
// it. They have no TTL; [Store.Retire] deletes them.
//
// A reservation of a buyer of its own takes some 140 bytes of Redis, in any
// state, and while the journal has its events some 30 for each.
//
// # Durability
//
// An answer is as durable as Redis is set up to be (appendonly, appendfsync).
// With Options.Replicas it also waits for replicas, and tells how many have it.
// A failover may still lose what was answered before: that is what the fence
// and the ledger are for.
//
// # Limits
//
//   - A buyer's records in one pool are kept in one field, of those that have
//     ended at most Options.MaxRecords, 16 times as many in all; beyond that it is
//     [stock.ErrTooManyAttempts].
//   - Finished IDs are forgotten after Options.Retention: when their buyer comes
//     again, or within a quarter of it more while anybody runs [Store.Run].
//     What is sold is kept until the pool retires.
//   - A server's clock that jumps ahead and back again has forgotten so much the
//     more: an attempt whose ended ID it forgot is then taken for a new one. No
//     unit is sold twice for that.
//   - Without a ledger a process that knows nothing of a pool's history can't
//     tell that Redis lost some of it.
//   - A refusal may be repeated from memory for Options.Memory to attempts that
//     say they are the first ([stock.Request].First), so a unit that another
//     process frees may show that much later.
package redisstock
