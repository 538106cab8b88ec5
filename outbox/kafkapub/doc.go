// Package kafkapub publishes the outbox's messages to Kafka: it is
// watermill-kafka's own publisher with the settings that the outbox's promise
// needs, and with its errors told apart.
//
//	publisher, err := kafkapub.New([]string{"kafka-1:9092", "kafka-2:9092"}, nil)
//	if err != nil { … }
//	defer publisher.Close()
//	relay, err := outbox.NewRelay(store, publisher, []string{"orders"}, nil)
//
// Settings, none of which can be turned off: an acknowledgement from all
// in-sync replicas, the idempotent producer, one open request per broker, the
// protocol of Kafka 2.1 or newer. A record's partition comes from the message's
// key by murmur2, as the Java client has it, so that producers in other languages
// agree on a key's place. Set min.insync.replicas to 2 on the topics: with 1, "all"
// may be one.
//
// # Limits
//
// A lost reply makes the relay send a message again, and a relay that froze in
// the middle of a call may do so late: consumers remove repeats by ID, after
// which each key's messages stand in order. Changing a topic's number of
// partitions moves keys to other partitions; stop the relays and let consumers
// catch up before you do.
package kafkapub
