package stock

import (
	"context"
	"time"
)

// EventKind says what happened to a reservation.
type EventKind uint8

// The kinds of event.
const (
	EventReserved EventKind = iota + 1
	EventConfirmed
	EventCancelled
	EventExpired
	EventReturned
	EventExtended
	EventLateConfirmed // sold after its hold had ended, by [LateIfFree]
	EventLate          // a confirmation came too late and was refused: pay the buyer back. Told once
	EventAdded         // units were added to the pool; there is no ID
	EventTakenOut      // units were taken out of it; there is no ID
)

// String returns the kind's name in lower case.
func (k EventKind) String() string {
	switch k {
	case EventReserved:
		return "reserved"
	case EventConfirmed:
		return "confirmed"
	case EventCancelled:
		return "cancelled"
	case EventExpired:
		return "expired"
	case EventReturned:
		return "returned"
	case EventExtended:
		return "extended"
	case EventLateConfirmed:
		return "late-confirmed"
	case EventLate:
		return "late"
	case EventAdded:
		return "added"
	case EventTakenOut:
		return "taken-out"
	default:
		return "unknown"
	}
}

// Event is one change of a pool, written in the same step as the change.
// (SKU, Epoch, Seq) names it for ever: a consumer drops repeats by it.
type Event struct {
	SKU      string
	Epoch    int64
	Seq      int64 // without gaps within an epoch
	Kind     EventKind
	ID       ID
	Quantity int64
	Lines    []Line    // the same by SKU, for a pool with Items
	Released []Line    // what a part confirmation gave back in the same step
	At       time.Time // by the store's clock
}

// JournalReader reads a pool's own outbox, for a relay that publishes the
// events and then trims them. It is implemented by package redisstock.
type JournalReader interface {
	// ReadJournal returns up to n entries that are not yet trimmed, oldest
	// first, each with all events of one step, and nothing when there are none.
	// It begins with the oldest whatever was read before.
	ReadJournal(ctx context.Context, sku string, n int) ([]JournalEntry, error)
	// TrimJournal forgets entries that were published, named in the order in
	// which they were read, as far as they stand at the journal's front. It stops
	// at the first other one, so nothing goes that was not named, whatever the
	// store has lost meanwhile or written in its place.
	TrimJournal(ctx context.Context, sku string, relayed ...string) error
}

// JournalEntry is the events of one step of the store.
type JournalEntry struct {
	Position string // names the entry by what it says, for [JournalReader.TrimJournal]
	Events   []Event
}
