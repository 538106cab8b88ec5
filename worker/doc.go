// Package worker runs typed handlers over the events of a broker: keys in
// parallel, order within a key, one effect per event.
//
//	w, err := worker.New(subscriber, inbox, worker.DeadLetterTo(publisher), nil)
//	...
//	err = worker.HandleTx(w, "orders.confirm", "order.placed",
//		func(ctx context.Context, tx *sql.Tx, e worker.Event[OrderPlaced]) error {
//			_, err := tx.ExecContext(ctx, `UPDATE orders SET status = 'confirmed' WHERE id = $1`, e.Payload.OrderID)
//			return err
//		})
//	...
//	err = w.Run(ctx) // until ctx ends, then drains
//
// # What is promised
//
// The broker delivers each event at least once; the [Inbox] makes of it one
// effect. With [HandleTx] the mark that the event is done stands in the
// handler's own transaction: repeats, crashes, and two workers given the same
// event at once leave one effect. With [Handle] the inbox is asked before and
// marked after, so a crash between effect and mark, or two processes given the
// event in the same moment, run the handler twice: its effect, a call to a
// payment provider say, must be idempotent by [Event.ID].
//
// Events of one key run one after another, in the order received; a failed one
// holds back those behind it while other keys go on. Events without a key have
// no order. Several workers share a topic as the transport allows: on Kafka a
// key has one worker at a time, with the limits that package kafkasub names; on
// Redis Streams entries go to whoever asks, so order per key holds with one
// consumer per stream. One effect holds always.
//
// An event ends in one of two ways: finished, or in the dead letters with its
// bytes, key, metadata and origin. Undecodable ones go there at once, failing
// ones after [Options.MaxAttempts]; the line goes on. If the dead letter cannot
// be stored, the event is not acknowledged.
//
// # Dead letters
//
// [DeadLetterTo] publishes them to a topic, for whoever reads it. A
// [LetterStore], such as package sqldead, keeps them in SQL:
//
//	dead, err := sqldead.New(db, "postgres", nil)
//	w, err := worker.New(subscriber, inbox, dead, nil)
//	...
//	page, err := dead.Letters(ctx, worker.LetterQuery{})
//	err = dead.Requeue(ctx, page[0].Seq)
//
// The policy is skip: the key's later events go on. While an event's letter
// stands, a repeat of the event is not run, also after [LetterOperator.Drop],
// which leaves a tombstone. A requeued letter runs in a worker that has its
// handler, at once in the process that asked and within [Options.LetterPoll]
// elsewhere, with its original ID, key, payload and metadata, in its key's lane
// of that process. It is gone when the handler is done: with [HandleTx], and
// inbox and store on one [sql.DB], in the transaction of mark and effect; else
// right after the mark. If it fails again, it lies there again with the sum of
// attempts. An outage, a stop or a crash leaves it requeued. The price is one
// look-up by a unique key per event.
//
// [LetterMonitor] shows count and age as gauges.
//
// # What a handler answers
//
//   - nil: done, never again.
//   - [Stop]: no attempt will mend it; dead letter now.
//   - [Later]: no failure; again after that time.
//   - an error that says that something is away: an outage, which counts no
//     attempt. What Redis, the databases, this module's stores and the network say
//     is recognised; [Unavailable] marks the rest.
//   - an error that says that another transaction was in the way (a serialization
//     failure, a deadlock, a lock not had in time): again at once, not counted.
//   - any other error, a panic, a timeout: a failed attempt; again after
//     [Options.Retry], until [Options.MaxAttempts].
//
// # Outages
//
// In an outage events wait, as long as it lasts. Nothing else is needed when it is
// over: waits are at most 2 s where a handler finishes nothing (and the rest of an
// attempt that hangs, so give clients timeouts), 10 s where only some of its keys
// are concerned. One line of the log tells its begin and one its
// end; the metric firstcome.worker.outage is 1 meanwhile.
//
// When a handler has finished nothing for a second and three of its keys have
// failed, or one has three times, its events are held back and one at a time is
// tried, without a place in [Options.Concurrency] for those that wait. Then each
// event that is finished lets one more through, so that a server that comes back
// does not meet all at once. A failing inbox is an outage too.
//
// Three different keys that fail while nothing is finished are an outage whatever
// their errors say. So that no event stays for ever, failures count after all:
//
//   - an unknown error, when the handler has finished another event since this
//     one's last failure; in any case [Options.OutagePatience], 15 minutes, after
//     the event's first failure that did not count;
//   - an outage or contention, when that is 15 minutes ago, the handler has
//     finished 20 other events meanwhile, and one since the last failure; in any
//     case after [Options.OutageLimit], 7 days.
//
// A dead letter that comes of an outage has [ClassUnavailable].
//
// # Limits
//
//   - Attempts are counted in memory, and the patience with an outage too. An
//     event that kills the process, by exhausting its memory say, starts at 1 each
//     time.
//   - What is an outage is judged per handler and process, by what its own events
//     meet. Where only a part of a server is silent (one node of a cluster, and its
//     client has long timeouts), the attempts that hang there take places in
//     [Options.Concurrency] from the others.
//   - Events that wait in an outage count in [Options.MaxInFlight]: where the
//     subscriber hands out far ahead, they can fill it and hold up other topics.
//   - Waiting for a retry, for the end of an outage, or for [Later], holds the
//     event in memory, unacknowledged, and what the transport holds back behind it.
//     Watermill's Kafka subscriber has one message in flight per partition, its
//     Redis Streams subscriber one per topic: a key that waits stops the others
//     behind it there. Subscribers that deliver ahead of acknowledgements, such as
//     gochannel, have no such wait.
//   - One hot key can fill [Options.MaxInFlight], and the other keys then wait.
//   - An inbox with a retention forgets, and so does a store of dead letters its
//     tombstones: repeats must not come later, see [Options.ReplayWindow].
//   - A drop does not stop an attempt at the same event that another worker has
//     begun before it, on an event that the broker gave to two.
//   - A handler that ignores its context keeps its key and its place in
//     [Options.Concurrency] until it returns.
//
// # Wire format
//
// Plain Watermill messages: the UUID is the event's ID, [MetaKey], [MetaFormat]
// and [MetaTopic] stand in the metadata, the payload is JSON unless
// [Options.Decode] says otherwise. The trace context of "traceparent" and
// "tracestate" is linked to each attempt's span.
package worker
