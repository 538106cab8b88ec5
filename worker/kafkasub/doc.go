// Package kafkasub receives from Apache Kafka: Watermill's Kafka subscriber with
// settings that lose nothing, for package worker or any Watermill router.
//
//	sub, err := kafkasub.New([]string{"localhost:9092"}, "order-workers", nil)
//	defer sub.Close()
//	w, err := worker.New(sub, inbox, worker.DeadLetterTo(publisher), nil)
//
// A new group starts at the oldest message. Only the offsets of acknowledged
// messages are ever committed: every [Options.CommitEvery], before a partition is
// given up, and when the subscription ends. Bytes that do not decode become a
// message with worker.MetaUndecodable in its metadata, which the worker puts to the dead letters; Watermill's own subscriber would end the
// group's session on them, over and over. Each message carries its topic,
// partition and offset in the metadata, and the record's key as worker.MetaKey
// where the sender gave none. Records without a Watermill UUID, those of other
// producers, get an ID made of place and time, the same at each delivery.
//
// Metadata names "firstcome-origin-…" and worker.MetaUndecodable are this
// package's; what a sender put there is overwritten or removed.
//
// # Limits
//
// They are those of Watermill's subscriber, which this package stands on for now:
//
//   - One message in flight per partition. A handler that waits, for its retry
//     or for worker.Later, holds its whole partition.
//   - It does not watch the group's session. At a rebalance, a partition is let
//     go when its message in flight is finished; past [Options.RebalanceTimeout]
//     the broker gives it to another member, and the two may run one key at the
//     same time. The acknowledgement of a message that was in flight is lost, so
//     the new owner receives it again. The inbox makes one effect of both. In an
//     outage events wait for longer than that: a rebalance then ends without this
//     member, which comes back when its events are finished.
//   - A process that is killed has the messages of its last [Options.CommitEvery]
//     delivered again.
package kafkasub
