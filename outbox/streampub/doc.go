// Package streampub publishes the outbox's messages to Redis Streams, in
// watermill-redisstream's format: one stream per topic, named like it.
//
//	publisher, err := streampub.New(client, nil)
//	if err != nil { … }
//	relay, err := outbox.NewRelay(store, publisher, []string{"orders"}, nil)
//
// Many messages go in one trip, each stream's in one MULTI … EXEC: all of them
// or none, so that no message passes an earlier one of its key that was refused.
//
// # Limits
//
// What Redis acknowledged is as durable as its settings: use appendonly yes with
// appendfsync always, or replicas, and maxmemory-policy noeviction. A lost
// reply, or a relay that froze in the middle of a call, makes messages appear
// twice: consumers remove repeats by ID, after which each key's messages stand
// in order. Streams grow until somebody trims them; see [Options].
//
// The client stays the caller's: Close does not close it. Give it
// ContextTimeoutEnabled, or timeouts below the relay's PublishTimeout.
package streampub
