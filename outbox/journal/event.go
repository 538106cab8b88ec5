package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
)

// Version is that of the payload's format.
const Version = 1

// Event is one change of a pool, and, as JSON, the payload of its message. The
// names of its fields and kinds are stable; fields may be added within a version.
//
//	{"version":1,"sku":"ticket","epoch":1,"seq":42,"kind":"reserved","id":"4g…","quantity":2,"at":"2026-11-22T09:00:00.125Z"}
type Event struct {
	Version  int       `json:"version"`            // set by the relay; reading another one is an error
	SKU      string    `json:"sku"`                // the pool's name
	Epoch    int64     `json:"epoch"`              // rises with each rebuild of the pool
	Seq      int64     `json:"seq"`                // from 1 in each epoch, without gaps
	Kind     string    `json:"kind"`               // reserved, confirmed, cancelled, expired, returned, extended, late-confirmed, late, added, taken-out
	ID       string    `json:"id,omitempty"`       // the reservation; none where the change is the pool's own
	Quantity int64     `json:"quantity"`           // units
	Lines    []Line    `json:"lines,omitempty"`    // the same by SKU, for a pool that sells several
	Released []Line    `json:"released,omitempty"` // what a part confirmation gave back in the same step
	At       time.Time `json:"at"`                 // by the store's clock, RFC 3339 in UTC
}

// Line is some units of one SKU.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// MessageID names the event for ever: the first 16 bytes of the SHA-256 of the
// pool's name in hex, epoch and sequence number, with slashes between.
func (e *Event) MessageID() string {
	pool := sha256.Sum256([]byte(e.SKU))
	return hex.EncodeToString(pool[:16]) + "/" + strconv.FormatInt(e.Epoch, 10) + "/" + strconv.FormatInt(e.Seq, 10)
}

// Key is what order is kept for: the reservation, or the pool where there is none.
func (e *Event) Key() string {
	if e.ID == "" {
		return e.SKU
	}
	return e.ID
}

// UnmarshalJSON reads a payload, and refuses one of another version.
func (e *Event) UnmarshalJSON(text []byte) error {
	type plain Event // without this method
	var read plain
	if err := json.Unmarshal(text, &read); err != nil {
		return fmt.Errorf("journal: event: %w", err)
	}
	if read.Version != Version {
		return fmt.Errorf("journal: event: format is version %d, this build knows %d", read.Version, Version)
	}
	*e = Event(read)
	return nil
}

var errEvent = errors.New("journal: an event that no consumer could use")

// check refuses what must never reach the broker.
func (e *Event) check(pool string) error {
	switch {
	case e.SKU != pool:
		return fmt.Errorf("%w: it is of another pool", errEvent)
	case e.Epoch < 1 || e.Seq < 1:
		return fmt.Errorf("%w: epoch %d, seq %d", errEvent, e.Epoch, e.Seq)
	case e.Kind == "" || e.Kind == "unknown":
		return fmt.Errorf("%w: its kind is not known", errEvent)
	case e.Key() == "" || len(e.Key()) > outbox.MaxKeyBytes || !utf8.ValidString(e.Key()):
		return fmt.Errorf("%w: its key has %d bytes, or is not UTF-8", errEvent, len(e.Key()))
	}
	return nil
}

// message makes the event's message; the same event always makes the same.
func (e *Event) message(topic string) (*message.Message, error) {
	told := *e
	told.Version, told.At = Version, e.At.UTC()
	var payload bytes.Buffer
	encoder := json.NewEncoder(&payload)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(&told); err != nil {
		return nil, fmt.Errorf("journal: event: %w", err)
	}
	m := message.NewMessage(told.MessageID(), bytes.TrimSuffix(payload.Bytes(), []byte("\n")))
	m.Metadata[outbox.MetadataFormat] = outbox.WireFormat
	m.Metadata[outbox.MetadataKey] = told.Key()
	m.Metadata[outbox.MetadataTopic] = topic
	return m, nil
}
