package journal

import (
	"context"
	"time"
)

// Reader reads the journals of pools. fxmodule.JournalReader makes one of a
// stock.JournalReader.
type Reader interface {
	// ReadJournal returns up to n entries that are not yet trimmed, oldest
	// first, and nothing when there are none. n is 1 to 128. It begins with the
	// oldest whatever was read before.
	ReadJournal(ctx context.Context, pool string, n int) ([]Entry, error)
	// TrimJournal forgets 1 to 128 entries, named in the order in which they were
	// read, as far as they stand at the journal's front. It stops at the first
	// other one, in the same step: nothing goes that was not named, whatever the
	// store has lost meanwhile or written in its place.
	TrimJournal(ctx context.Context, pool string, relayed ...string) error
}

// Entry is the events of one step of the store.
type Entry struct {
	// Position names the entry by what it says, for TrimJournal: another entry
	// has another one, though it stand in the same place or under the same numbers.
	Position string
	Events   []Event
}

// Leaser may be implemented beside [Reader]: one relay then works on a pool
// while the others stand by. Nothing but the number of repeats depends on it:
// two relays that both believe to hold a pool break no promise.
type Leaser interface {
	// LeaseJournal takes or renews the lease on a pool's journal for a relay, for
	// ttl by the store's clock, and reports whether the relay has it now. ttl 0
	// gives it back; to give back what another has changes nothing.
	LeaseJournal(ctx context.Context, pool, relay string, ttl time.Duration) (held bool, err error)
}

// Pools lists the pools that are to be relayed, by name. It is asked again every
// Options.PoolsInterval. A pool that is no longer on the list is left alone, so
// keep it there until its journal is empty (stock.Store.Retire sees to that).
type Pools func(ctx context.Context) ([]string, error)

// These is a list that stays as it is.
func These(pools ...string) Pools {
	list := append([]string(nil), pools...)
	return func(context.Context) ([]string, error) { return list, nil }
}
