package worker

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Errors of a [LetterOperator].
var (
	// ErrNoLetter: there is no such letter: never put, done, or dropped.
	ErrNoLetter = errors.New("worker: no such dead letter")
	// ErrRequeued: the letter is requeued already; a worker will take it.
	ErrRequeued = errors.New("worker: dead letter is requeued already")
	// ErrLetterRunning: a worker has the letter in hand. Ask again when it is
	// done, or dead, it is gone or lies again.
	ErrLetterRunning = errors.New("worker: dead letter is running now")
	// ErrNotRequeueable: no run can mend the letter: its envelope was at fault,
	// so that no handler saw it; or the store had to cut it; or it waits behind
	// another one. It can be dropped, and published anew from its origin.
	ErrNotRequeueable = errors.New("worker: dead letter cannot be requeued")
)

// LetterState says where a stored letter stands.
type LetterState string

// The states of a stored letter. One that ran to its end is gone: the inbox has
// the event's mark then.
const (
	LetterDead     LetterState = "dead"     // it lies there
	LetterRequeued LetterState = "requeued" // to be run, or running
	LetterDropped  LetterState = "dropped"  // a tombstone: the event is not run any more
)

// StoredLetter is a letter as a store keeps it.
type StoredLetter struct {
	// Letter is as it was put. Attempts is the sum over all runs, At by the
	// store's clock. A listing leaves the payload out, a tombstone has neither
	// payload nor metadata.
	Letter

	Seq      int64 // names the letter in its store, rising
	State    LetterState
	Size     int64         // of the payload as received, in bytes
	Cut      bool          // larger than the store keeps: payload and metadata are not whole
	Requeues int           // how often it was requeued
	Age      time.Duration // since it was last put, by the store's clock
	Running  bool          // a worker has it in hand
	// NoWorker is set on a requeued letter whose handler no worker has asked
	// for in the last two minutes: it waits for one that has it.
	NoWorker bool
}

// LetterQuery selects letters for [LetterOperator.Letters]. Empty fields select
// all.
type LetterQuery struct {
	After   int64       // only those of a higher Seq: the last one of the page before
	Limit   int         // default 100, at most 200
	State   LetterState // default: dead and requeued
	Handler string
	Topic   string
	Class   Class
}

// LetterStats counts the letters of one topic, handler, class and state.
type LetterStats struct {
	Topic   string
	Handler string
	Class   Class
	State   LetterState
	Count   int64
	Oldest  time.Duration // age of the oldest
}

// LetterOperator is what people use to look after dead letters, from any
// process and while workers run.
type LetterOperator interface {
	// Letters lists by rising Seq, without payloads.
	Letters(ctx context.Context, q LetterQuery) ([]StoredLetter, error)
	// Letter returns one letter whole, also a tombstone, or [ErrNoLetter].
	Letter(ctx context.Context, seq int64) (StoredLetter, error)
	// Requeue has a dead letter run again: a worker that has its handler takes
	// it up, with the original ID, key, payload and metadata, and removes it
	// when it is done. One that fails again lies there again.
	//
	// [ErrNoLetter], [ErrRequeued], [ErrNotRequeueable].
	Requeue(ctx context.Context, seq int64) error
	// Drop gives the letter up for good. A tombstone keeps a repeat of the
	// event from running, for as long as the broker may deliver one.
	//
	// [ErrNoLetter], [ErrLetterRunning].
	Drop(ctx context.Context, seq int64) error
	// LetterStats counts the letters, tombstones too, in at most 1,000 groups.
	LetterStats(ctx context.Context) ([]LetterStats, error)
}

// LetterStore is a [DeadLetter] that can be read, and whose letters can be run
// again; sqldead implements it. A worker whose dead letters are one asks it
// before each event, and takes up what was requeued.
//
// Put keeps a letter once per Handler and EventID: put again, also after it was
// dropped, it changes nothing. Where the event has no ID, its origin and its
// content stand in for it.
type LetterStore interface {
	DeadLetter
	LetterOperator

	// Find returns the letter of an event, whole, in any state, or [ErrNoLetter].
	Find(ctx context.Context, handler, eventID string) (StoredLetter, error)
	// Buried reports whether the event has a letter in any state. A repeat of it
	// from the broker does not run then.
	Buried(ctx context.Context, handler, eventID string) (bool, error)

	// Requeued lists requeued letters of the handlers that nobody has in hand,
	// without payloads, at most limit, by rising Seq after the given one. It
	// notes that a worker has these handlers.
	Requeued(ctx context.Context, handlers []string, after int64, limit int) ([]StoredLetter, error)
	// Take gives a requeued letter, whole, into the taker's hand until the lease
	// is over or it lets go; taken again, the lease begins anew. It reports
	// false when the letter is in another's hand, or is not requeued any more.
	Take(ctx context.Context, seq int64, taker string, lease time.Duration) (StoredLetter, bool, error)
	// Remove ends a letter in the taker's hand; false when it is not there.
	Remove(ctx context.Context, seq int64, taker string) (bool, error)
	// PutBack makes of a letter in the taker's hand a dead one again, with the
	// class and error of the given one, whose attempts are added.
	PutBack(ctx context.Context, seq int64, taker string, letter Letter) error
	// Release lets go of a letter in the taker's hand; it stays requeued.
	Release(ctx context.Context, seq int64, taker string) error
	// Changed returns a channel that closes when a letter is requeued through
	// this value, so that a worker of this process need not wait for its poll.
	Changed() <-chan struct{}
}

// txLetters is a [LetterStore] whose letters can be removed in the inbox's
// transaction, where both are on the same [sql.DB].
type txLetters interface {
	LetterStore
	Database() *sql.DB
	RemoveTx(ctx context.Context, tx *sql.Tx, seq int64, taker string) (bool, error)
}

// database is what an inbox in SQL says of itself.
type database interface{ Database() *sql.DB }

// sharedLetters returns the store where its letters can be removed in the
// transactions of the inbox.
func sharedLetters(inbox Inbox, store LetterStore) txLetters {
	letters, ok := store.(txLetters)
	if !ok {
		return nil
	}
	if in, ok := inbox.(database); !ok || in.Database() != letters.Database() {
		return nil
	}
	return letters
}
