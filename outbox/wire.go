package outbox

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
)

// The wire format, version 1. It is that of the Watermill publisher in use, so
// that any Watermill subscriber reads it: the message's ID is Watermill's UUID,
// the payload is the Watermill payload byte for byte, and the metadata holds the
// message's own headers and the names below. Kafka: UUID and metadata are record
// headers (UUID under "_watermill_message_uuid"), the record's key is the message's
// key. Redis Streams: the fields "_watermill_message_uuid", "metadata"
// (MessagePack map of strings) and "payload".
const (
	MetadataFormat     = "firstcome-format" // "1"; a reader refuses what it does not know
	MetadataKey        = "firstcome-key"    // the key that order is kept for
	MetadataTopic      = "firstcome-topic"  // the topic it was written for, kept through dead letters
	MetadataTraceState = "tracestate"       // W3C trace context of the transaction that wrote it
	MetadataTrace      = "traceparent"

	WireFormat = "1"
)

// StoredFormat is the version of the stored record that this package writes.
const StoredFormat = 1

// toWire makes the Watermill message of a row.
func toWire(ctx context.Context, m *Message) *message.Message {
	out := message.NewMessage(m.ID, m.Payload)
	for name, value := range m.Headers {
		out.Metadata[name] = value
	}
	out.Metadata[MetadataFormat] = WireFormat
	out.Metadata[MetadataKey] = m.Key
	out.Metadata[MetadataTopic] = m.Topic
	out.SetContext(ctx)
	return out
}
