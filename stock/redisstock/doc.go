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
// pool that arrive while a call is under way share the next one, in order of
// arrival, so a crowd costs one trip per batch.
//
// Without a ledger (nil) a hold ends by its time. With one, nothing past its
// time is freed before the ledger has agreed, in writing; see [stock.Ledger].
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
// A pool is four keys that share a hash tag, which is a digest of its name:
// meta, a hash of reservations by buyer, an index of expiries, and the journal,
// a stream to which each change is appended by the step that makes it. They
// have no TTL.
//
// # Limits
//
//   - A buyer's records in one pool are kept in one field, at most
//     Options.MaxRecords of them; beyond that it is [stock.ErrTooManyAttempts].
//   - Finished IDs are forgotten after Options.Retention, when their buyer comes
//     again. A pool's keys are not deleted by this package.
//   - A refusal may be repeated from memory for Options.Memory to attempts that
//     say they are the first ([stock.Request].First), so a unit that another
//     process frees may show that much later.
package redisstock
