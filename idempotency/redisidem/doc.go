// Package redisidem keeps the records of package idempotency in Redis.
//
// A record is one string: claim, heartbeat and settlement are one script and
// one round trip each, shared by goroutines that call at the same time.
//
//	store, err := redisidem.New(client, nil)
//	…
//	keeper, err := idempotency.New(store, hashKey, idempotency.Rerun, nil)
//
// Single node, Sentinel and Cluster all work; the client stays yours. A record
// lives in the slot of its own hash, which clients of yours can't choose.
//
// # The client
//
// Set ContextTimeoutEnabled, or a call that hangs keeps its connection for the
// client's ReadTimeout (New warns). ReadTimeout, WriteTimeout and DialTimeout of 1
// to 2 s suit. At most half of PoolSize is taken by calls that hang. A Dialer with
// TCP_USER_TIMEOUT finds connections that died without a word; the shop in
// examples has one. With MaxRetries -1 nothing is sent twice.
//
// A server that does not answer several times in a row is asked no more until a
// probe finds it back; meanwhile each call fails at once, and the keeper knows
// that nothing was sent. On a Cluster that holds for each node by itself.
//
// # Limits
//
// The promise of package idempotency stands as long as Redis keeps what it
// answered. It does not where it evicts (use noeviction; [Store.Check] looks),
// where it loses its last writes in a crash (appendfsync everysec: the last
// second) or a failover to a replica that is behind. Then an operation may run
// a second time, under the same ClaimID.
//
// A running or finished record that Redis has lost is written again by its
// holder's next step. With the record Redis forgets which attempts have ended: a
// claim that was on its way meanwhile may then hold the key for a lease.
package redisidem
