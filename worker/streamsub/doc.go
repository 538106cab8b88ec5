// Package streamsub receives from Redis Streams: Watermill's Redis Streams
// subscriber with what it lacks in order to lose nothing, for package worker or
// any Watermill router.
//
//	sub, err := streamsub.New(client, "order-workers", nil)
//	defer sub.Close() // ends the subscriptions; the client stays the caller's
//	w, err := worker.New(sub, inbox, worker.DeadLetterTo(publisher), nil)
//
// A new group starts at the oldest entry; one that was deleted is made anew,
// from the oldest too. An entry in the hands of a live handler is kept from the
// other consumers however long the handler takes: its idle time is set back
// every third of [Options.ClaimIdle]. What a killed process held is taken over
// when it has been idle for ClaimIdle, and at once by a process that starts under
// the same [Options.Consumer]. A clean stop hands back what it had not begun.
// Bytes that do not decode become a message with worker.MetaUndecodable in its
// metadata; Watermill's own subscriber would end on them.
//
// Each message carries its stream and entry ID in the metadata, under
// worker.MetaOriginTopic and worker.MetaOriginOffset. Entries without a
// Watermill UUID, those of other producers, are undecodable; their fields stand
// in the metadata under "field.", for the dead letter to be whole.
//
// # Limits
//
// They are those of Watermill's subscriber, which this package stands on for now:
//
//   - One message in flight per topic. A handler that waits, for its retry or
//     for worker.Later, holds the topic.
//   - Redis hands entries to whichever consumer asks: with several processes in a
//     group, two events of one key may run at the same time or change places.
//     Order per key holds with one process per stream, until it is killed or
//     loses its connection; what it had in hand then comes late. The inbox keeps
//     to one effect in any case.
//   - A process that is frozen, or cut off from Redis, for longer than ClaimIdle
//     loses what it has in hand to another; both may then finish it.
//   - Acknowledged entries stay in the stream; trimming it is the owner's.
//
// Redis 6.2 or newer. On miniredis, the stand-in for tests, all of it runs,
// except that two consumers who claim the same entry at once may both get it.
package streamsub
