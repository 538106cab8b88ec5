package worker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Class says in one word why an event became a dead letter.
type Class string

// The classes.
const (
	ClassFailed      Class = "failed"         // the handler failed at each attempt
	ClassTimeout     Class = "timeout"        // the last attempt ran out of [Options.Timeout]
	ClassPanic       Class = "panic"          // the last attempt panicked
	ClassStopped     Class = "stopped"        // the handler returned [Stop]
	ClassUnavailable Class = "unavailable"    // what it needs was away for this event while others went on, or for too long; see [Options.OutagePatience]
	ClassUndecodable Class = "undecodable"    // the payload or the envelope did not decode
	ClassFormat      Class = "unknown-format" // the envelope has a version other than [Format]
	ClassNoID        Class = "no-id"          // the message has no UUID
)

// Letter is an event that was given up, whole.
type Letter struct {
	// Handler is the handler that gave it up; empty when the envelope was at
	// fault and no handler saw it.
	Handler  string
	Topic    string
	EventID  string
	Key      string
	Payload  []byte            // as received
	Metadata map[string]string // as received
	Class    Class
	Err      string // text of the last error, cut at 512 bytes
	Attempts int
	Origin   Origin
	At       time.Time
}

// DeadLetter takes what no attempt could finish.
type DeadLetter interface {
	// Put stores the letter. Only after it returned nil the event is
	// acknowledged at its source; until then it is called again, with
	// [Options.Retry]'s delays, and the key waits. One letter may be put more
	// than once: repeats have the same Handler and EventID.
	Put(ctx context.Context, letter Letter) error
}

// The metadata that a dead letter carries beside the message's own.
const (
	MetaDeadHandler  = "firstcome-dead-handler"
	MetaDeadClass    = "firstcome-dead-class"
	MetaDeadError    = "firstcome-dead-error"
	MetaDeadAttempts = "firstcome-dead-attempts"
	MetaDeadAt       = "firstcome-dead-at" // RFC 3339, UTC

	// Where the event was received from. Names of their own, since a subscriber
	// of the dead letters sets those of [Origin] to the letter's own place.
	MetaDeadTopic     = "firstcome-dead-topic"
	MetaDeadPartition = "firstcome-dead-partition"
	MetaDeadOffset    = "firstcome-dead-offset"
)

// DeadSuffix is what [DeadLetterTo] adds to a topic's name.
const DeadSuffix = ".dead"

// DeadLetterTo publishes dead letters to the topic's name plus [DeadSuffix]:
// payload, UUID and metadata as received, and the reason and the origin as
// further metadata. The publisher stays the caller's to close.
func DeadLetterTo(publisher message.Publisher) DeadLetter { return &deadTopic{publisher} }

type deadTopic struct{ publisher message.Publisher }

var _ DeadLetter = (*deadTopic)(nil)

func (d *deadTopic) Put(ctx context.Context, letter Letter) error {
	msg := message.NewMessage(letter.EventID, letter.Payload)
	for k, v := range letter.Metadata {
		msg.Metadata.Set(k, v)
	}
	set := func(k, v string) {
		if v != "" {
			msg.Metadata.Set(k, v)
		}
	}
	set(MetaKey, letter.Key)
	set(MetaDeadHandler, letter.Handler)
	set(MetaDeadClass, string(letter.Class))
	set(MetaDeadError, letter.Err)
	set(MetaDeadAttempts, strconv.Itoa(letter.Attempts))
	set(MetaDeadAt, letter.At.UTC().Format(time.RFC3339Nano))
	set(MetaDeadTopic, letter.Origin.Topic)
	set(MetaDeadPartition, letter.Origin.Partition)
	set(MetaDeadOffset, letter.Origin.Offset)
	msg.SetContext(ctx)
	if err := d.publisher.Publish(letter.Topic+DeadSuffix, msg); err != nil {
		return fmt.Errorf("publish dead letter: %w", err)
	}
	return nil
}

// errorText is an error's text as a header can carry it.
func errorText(err error) string {
	const limit = 512
	text := err.Error()
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.ToValidUTF8(text, "?")
}
