// Package idempotency lets the first attempt at an operation run and gives
// later attempts its result.
//
// The promise: of all attempts that carry one key in one scope, at most one
// runs at a time; once one has finished, the others get its result and nothing
// runs again. A stale attempt, one that lost its claim while it was frozen,
// changes nothing.
//
// The smallest whole use, without HTTP (for HTTP see package middleware):
//
//	keeper, err := idempotency.New(store, hashKey, idempotency.Rerun, nil)
//	…
//	result, err := keeper.Do(ctx, "buyer-7", key, payload,
//		func(ctx context.Context, claim *idempotency.Claim) ([]byte, error) {
//			return charge(ctx, claim.ID(), payload)
//		})
//
// # States
//
//	absent → running → done       the result is kept and replayed
//	                 → released   nothing happened; the key is free
//	                 → unknown    nobody can say whether it happened
//
// A claim is running under a lease, which a heartbeat renews while the owner
// lives; an owner that dies leaves it unknown when the lease ends. A panic and
// an error without a word on what happened end there too, at once. Every step
// is one atomic operation of the [Store], checked by the claim's token, safe to
// send twice and at any time, and judged by the store's clock alone. A claim
// whose answer was lost is withdrawn, and takes nothing if it lands after that.
//
// # What unknown means
//
// An attempt may have charged the card and died before it could say so. What
// the next attempt does is decided by you, once, with no default: [Rerun] runs
// it again, so the operation must be repeatable under its [ClaimID] (a unique
// column, a provider's own idempotency key); [Refuse] asks your reconcile
// function whether it happened, and refuses until that is known.
//
// # Limits
//
//   - A result is kept for [Options.Retention]; after that the key is new.
//   - What a store loses, the package forgets. A Redis that evicts, or fails
//     over to a replica that is behind, may let an operation run twice; make
//     the operation repeatable under its ClaimID, or use an SQL store.
//   - The hash key is shared by the whole fleet and never changes on one
//     store: with another one every key is new.
//   - A replay is the stored result, byte by byte, even where the thing it
//     speaks of has changed since.
//   - Keys, scopes and payloads are stored as keyed hashes only, and stand in
//     no error, log, span or metric. Results are stored as they are.
package idempotency
