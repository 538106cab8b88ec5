package worker

import (
	"maps"

	"github.com/ThreeDotsLabs/watermill/message"
)

// The metadata that carries an event over the broker. The message's UUID is the
// event's ID. A message without them is a plain Watermill message: it has no
// key, hence no order, and is handled all the same.
const (
	MetaKey    = "firstcome-key"    // the key whose events stay in order
	MetaFormat = "firstcome-format" // version of this envelope: [Format]
	MetaTopic  = "firstcome-topic"  // the topic the event was written for
)

// Format is the version of the envelope that this package reads. A message of
// another version goes to the dead letters with [ClassFormat]; a message that
// names none is read as a plain one.
const Format = "1"

// The metadata that a subscriber adds to what it received, so that a dead
// letter names the place it came from.
const (
	MetaOriginTopic     = "firstcome-origin-topic"
	MetaOriginPartition = "firstcome-origin-partition" // Kafka only
	MetaOriginOffset    = "firstcome-origin-offset"    // Kafka's offset, or the ID of a stream's entry

	// MetaUndecodable marks a message whose envelope did not decode; its value
	// says why. The payload then holds the raw bytes. A subscriber sets it
	// instead of failing, since a failing unmarshaler ends the subscription.
	MetaUndecodable = "firstcome-undecodable"
)

// Origin is the place of a message in the broker. Fields that the transport
// does not have are empty.
type Origin struct {
	Topic     string
	Partition string // "3"
	Offset    string // "120" on Kafka, "1719000000000-0" on Redis Streams
}

// Event is what a handler receives.
type Event[T any] struct {
	// ID is the same at every delivery of the event. An effect outside the
	// handler's transaction is made idempotent by it.
	ID string
	// Key is the key whose events stand in order; empty where the sender gave none.
	Key string
	// Topic is the topic it was received from.
	Topic string
	// Payload is the decoded message.
	Payload T
	// Metadata is the message's metadata; a copy.
	Metadata map[string]string
	// Attempt counts from 1 within this delivery. It starts anew when the
	// broker delivers again, after a crash or a rebalance.
	Attempt int
	// Origin is the message's place in the broker, where the subscriber tells it.
	Origin Origin
}

func newEvent[T any](d *delivery, attempt int, payload T) Event[T] {
	return Event[T]{
		ID:       d.id,
		Key:      d.key,
		Topic:    d.topic,
		Payload:  payload,
		Metadata: maps.Clone(map[string]string(d.msg.Metadata)),
		Attempt:  attempt,
		Origin:   d.origin,
	}
}

func originOf(topic string, metadata message.Metadata) Origin {
	o := Origin{
		Topic:     metadata.Get(MetaOriginTopic),
		Partition: metadata.Get(MetaOriginPartition),
		Offset:    metadata.Get(MetaOriginOffset),
	}
	if o.Topic == "" {
		o.Topic = topic
	}
	return o
}
