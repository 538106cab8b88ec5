package outbox

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of a [Message]. They are checked when it is added, so that a row which
// no broker or database could carry never reaches the table.
const (
	MaxIDBytes      = 255           // ID
	MaxKeyBytes     = 255           // Key
	MaxTopicBytes   = 249           // Topic: Kafka's own bound
	MaxPayloadBytes = 4 << 20       // Payload; a broker's own bound is often lower (Kafka: 1 MiB)
	MaxHeaders      = 64            // number of Headers
	MaxHeaderBytes  = 16 << 10      // all names and values of Headers together
	reservedPrefix  = "firstcome-"  // names of ours on the wire, see wire.go
	watermillPrefix = "_watermill_" // names of Watermill's own on the wire
)

// ErrInvalid is wrapped by every refusal of [Message.Validate]; the message
// names the field.
var ErrInvalid = errors.New("outbox: invalid message")

// Message is one event: written with the business change, delivered at least
// once, in order among those of its topic and key.
type Message struct {
	// ID names the event for ever: it is Watermill's UUID on the wire, the same
	// at every repeat, and what consumers remove repeats by. 1 to 255 bytes.
	// Make it from what it is about ("<reservation ID>/placed"), never at random
	// at each attempt.
	ID string

	// Topic is where it goes: 1 to 249 of letters, digits, dot, dash and
	// underscore. The relay sends only to topics on its own list.
	Topic string

	// Key is what order is kept for (an order, an account). 1 to 255 bytes.
	Key string

	// Payload travels as it is, byte for byte. At most 4 MiB.
	Payload []byte

	// Headers travel as Watermill metadata. Names must not begin with
	// "firstcome-" or "_watermill_"; at most 64 of them and 16 KiB in all.
	Headers map[string]string
}

// Validate reports the first field that no store or broker could carry. The
// error wraps [ErrInvalid].
func (m Message) Validate() error {
	if err := checkText("ID", m.ID, MaxIDBytes); err != nil {
		return err
	}
	if err := checkText("Key", m.Key, MaxKeyBytes); err != nil {
		return err
	}
	if err := checkTopic(m.Topic); err != nil {
		return err
	}
	if len(m.Payload) > MaxPayloadBytes {
		return fmt.Errorf("%w: Payload has %d bytes, at most %d", ErrInvalid, len(m.Payload), MaxPayloadBytes)
	}
	return checkHeaders(m.Headers)
}

// checkText refuses what differs between databases: PostgreSQL's text holds no
// NUL and only UTF-8, and a bound that one dialect enforces all must.
func checkText(field, s string, limit int) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: %s is empty", ErrInvalid, field)
	case len(s) > limit:
		return fmt.Errorf("%w: %s has %d bytes, at most %d", ErrInvalid, field, len(s), limit)
	case strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("%w: %s holds a NUL", ErrInvalid, field)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %s is not UTF-8", ErrInvalid, field)
	}
	return nil
}

func checkTopic(topic string) error {
	if topic == "" || len(topic) > MaxTopicBytes || topic == "." || topic == ".." {
		return fmt.Errorf("%w: Topic must have 1 to %d characters, and more than dots", ErrInvalid, MaxTopicBytes)
	}
	for i := range len(topic) {
		c := topic[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("%w: Topic may hold letters, digits, dot, dash and underscore only", ErrInvalid)
		}
	}
	return nil
}

func checkHeaders(headers map[string]string) error {
	if len(headers) > MaxHeaders {
		return fmt.Errorf("%w: %d Headers, at most %d", ErrInvalid, len(headers), MaxHeaders)
	}
	total := 0
	for name, value := range headers {
		total += len(name) + len(value)
		switch {
		case name == "":
			return fmt.Errorf("%w: Headers hold an empty name", ErrInvalid)
		case strings.HasPrefix(name, reservedPrefix), strings.HasPrefix(name, watermillPrefix):
			return fmt.Errorf("%w: Headers name %q is reserved", ErrInvalid, name)
		case !utf8.ValidString(name), !utf8.ValidString(value):
			return fmt.Errorf("%w: Headers must be UTF-8", ErrInvalid)
		case strings.IndexByte(name, 0) >= 0, strings.IndexByte(value, 0) >= 0:
			return fmt.Errorf("%w: Headers hold a NUL", ErrInvalid)
		}
	}
	if total > MaxHeaderBytes {
		return fmt.Errorf("%w: Headers have %d bytes, at most %d", ErrInvalid, total, MaxHeaderBytes)
	}
	return nil
}
