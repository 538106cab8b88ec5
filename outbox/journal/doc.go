// Package journal carries the events of stock pools to a broker: each change of
// a pool stands in the pool's own journal, written in the same step as the
// change, and this relay publishes and then trims it.
//
//	// A pool's journal has a bound: JournalRelayed, with a relay, or JournalOff.
//	store, err := redisstock.New(client, ledger, redisstock.JournalRelayed(0), nil)
//
//	// In this process or others, any number of times:
//	relay, err := journal.New(fxmodule.JournalReader(store), publisher, "stock-events", journal.These("ticket"), nil)
//	err = relay.Run(ctx)
//
//	// In a worker; what repeats the inbox removes:
//	err = worker.Handle(w, "mailer", "stock-events", func(ctx context.Context, e worker.Event[journal.Event]) error { … })
//
// The publisher is Watermill's message.Publisher; where it is also an
// [outbox.BatchPublisher], many events go in one call. The wire format is that
// of package outbox, the payload is [Event] as JSON.
//
// # Promise
//
// Each event reaches the broker at least once. After removing repeats by message
// ID, the events of each key stand in the order in which they happened. Nothing
// is trimmed that the broker has not acknowledged, and nothing is dropped.
//
// The ID is [Event.MessageID]: pool, epoch and sequence number, the same at
// every repeat. The key is the reservation's ID as text; the pool's name where an
// event is the pool's own (added, taken-out). Within a key epoch and sequence
// number only rise, so a consumer may keep the highest pair of a key in the place
// of all IDs.
//
// # How it works
//
// A pool is read from its oldest entry, published in order, and trimmed up to
// the first event that was not acknowledged; then read again. A call to the
// publisher ends before the next event of its key is sent.
//
// A trim names each entry by what it says, and stops in front of any other: one
// that comes late, to a server that lacks what was published, deletes nothing
// that this server has written since. No position is remembered from one look to
// the next, so none can be ahead of a journal that was begun anew.
//
// Any number of relays may do so with one pool at once, and the order after
// removing repeats still holds, without a lock or a clock: whoever publishes an
// event has published the earlier ones of its key before, or did not find them
// because another had, and had trimmed them. So an event's first copy is always
// behind the first copy of the one before it, however the relays interleave and
// however long one of them freezes. A lease ([Leaser], which redisstock has) only
// saves the copies: while it holds, one relay works on a pool and the others
// stand by.
//
// While the broker is away the journal grows, and at its bound reservations are
// refused (stock.ErrJournalFull); confirming, cancelling and expiring go on. The
// broker is tried with one event at a time, at least every two seconds.
//
// A refused event ([outbox.Refused]: too large, no such topic, not allowed) stops
// its pool: nothing later of it is sent or trimmed until that event has passed.
// It is logged as an error, counted, told to Options.OnRefused, and tried again
// every Options.RefusedRetry, so whoever makes the broker accept it need do
// nothing more. Other pools go on.
//
// # Limits
//
//   - At least once: a lost reply, a relay killed between acknowledgement and
//     trimming, or two relays without a lease make events come again, with the
//     same ID; a relay that froze in the middle of a call, late. What removes
//     repeats must remember longer than that, or keep the highest pair per key.
//   - A pool is relayed as a whole. One partition without a leader holds up all
//     events of the pool, as a refused event does: its journal is trimmed from
//     the front only.
//   - Order is kept per key, not over a pool.
//   - What Redis loses before it was relayed is lost here too. Events of an epoch
//     that ended in a rebuild may speak of holds which are gone; the ledger
//     knows. A Redis that rolled back unnoticed, within an epoch, gives the same
//     numbers to other events, and consumers take those for repeats: the fence of
//     redisstock is against that, and has the limit that it names.
//   - Memory: for each of Options.MaxPools pools up to 128 entries, each with the
//     events of one step (at most 1,000); on average Options.PageEvents.
//   - An error without a verdict counts as the broker's: tried for ever.
//
// # Telemetry
//
// OpenTelemetry metrics firstcome.journal.published, .refused (by fault: message or
// broker), .failures (by step: list, lease, read, trim), .gaps (counters), .lag
// (histogram, from the event by the store's clock to the acknowledgement by this
// process'), .halted (pools stopped by a refusal) and .oldest (age of the oldest
// event seen and not acknowledged) as gauges of this process. The topic is the
// only other attribute. Pools are named in logs; reservation IDs and payloads are
// not.
package journal
