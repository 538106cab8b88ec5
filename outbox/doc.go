// Package outbox carries messages from a database to a broker, so that what an
// application says matches what it did.
//
// A message is written in the transaction of the business change it speaks of.
// If that commits, the message reaches the broker at least once; if it rolls
// back, never. After removing repeats by ID, the messages of each topic and key
// stand in the order in which they were written.
//
//	store, err := sqloutbox.New(db, "postgres", nil)
//
//	// With the change: the caller's transaction, nothing else.
//	tx, err := db.BeginTx(ctx, nil)
//	…
//	err = store.Add(ctx, tx, outbox.Message{ID: order.ID + "/placed", Topic: "orders", Key: order.ID, Payload: body})
//	err = tx.Commit()
//	relay.Notify() // optional: go now, not at the next poll
//
//	// Beside it, in this process or another, any number of times:
//	relay, err := outbox.NewRelay(store, publisher, []string{"orders"}, nil)
//	err = relay.Run(ctx)
//
// The publisher is Watermill's message.Publisher: kafkapub and streampub have
// settings that fit, any other one works. Plain Watermill subscribers read what
// is sent; see [MetadataKey] and its neighbours for the wire format.
//
// # How it works
//
// The table is a queue, not a log with a cursor: rows are read and deleted, so a
// transaction that commits late is never skipped, and one that stays open, or
// leaves a hole in the sequence, is never waited for. Each row stands in one of
// [Lanes] lanes by its topic and key. A lane has one relay at a time, by a lease
// with an epoch; relays share the lanes evenly, and take over those of one that
// stops (at its next heartbeat) or dies (after LeaseTTL). No transaction,
// lock or connection is held while a message is being published, and
// a relay uses two connections at most.
//
// At most one message of a key is unanswered at a time. If the broker refuses it,
// the later ones of its key wait with it and all other keys go on. After
// MaxAttempts it is parked with its error, for people to list, requeue or drop
// ([Operator]); what follows it is held, or goes on without it ([AfterParked]).
// While the broker is away nothing counts as an attempt and nothing is parked.
//
// # Limits
//
//   - At least once, not exactly once: a broker's lost reply, or a relay killed
//     between the broker's answer and the delete, makes a message come again, with
//     the same ID. Consumers remove repeats by ID (package worker does).
//   - Order per key is promised for transactions that lock or version-check what
//     the key names before they add. Between others the database has no order
//     either.
//   - A relay that froze in the middle of a call to the broker for longer than
//     its lease may complete that call late: one message (one batch) repeated,
//     late. It deletes nothing by then.
//   - A row that is committed more than five seconds after it was added is found
//     within a minute, after ten minutes within five: the further back, the rarer
//     the sweep.
//   - What the database loses (a failover to a replica that lagged) is lost here
//     too, together with the change it spoke of. Leases stand on the database's
//     clock: one that jumps forward by a lease's length may give a lane two
//     relays until the next heartbeat, and so repeats.
//   - A publisher without verdicts ([Refused], [Unavailable]) is judged: while
//     three or more keys fail and nothing is accepted, it is taken for an outage.
//   - One table, one broker: two destinations are two tables, in two schemas or
//     databases.
//
// # Telemetry
//
// OpenTelemetry metrics firstcome.outbox.published, .refused, .parked (counters),
// .lag (histogram, from written to acknowledged), .pending, .parked.current, .held,
// .oldest (gauges, whole store; counted at most every ten seconds, and only if
// somebody collects); a span for each attempt, linked to the trace that wrote
// the message. Topics are the only attributes; no key, ID or payload is logged.
package outbox
