package worker

import (
	"context"
	"database/sql"
	"time"
)

// Inbox remembers which handler has finished which event, so that a repeated
// delivery has no second effect. The key is the handler's name and the event's
// ID: two handlers of one event each run. An Inbox is used by many goroutines.
//
// An event is marked when its handler has finished, never before: a crash in
// between leaves no mark, and the next delivery runs the handler again.
type Inbox interface {
	// Seen reports whether the handler has finished the event.
	Seen(ctx context.Context, handler, eventID string) (bool, error)
	// Mark records that the handler has finished the event. Marking what is
	// marked already is no error.
	Mark(ctx context.Context, handler, eventID string) error
}

// TxInbox is an [Inbox] whose mark can stand in the handler's own transaction.
// [HandleTx] needs one; sqlinbox implements it.
type TxInbox interface {
	Inbox
	// InTx begins a transaction, marks the event in it, runs work and commits.
	// It reports false, without having run work, when the event was marked
	// already, which is no error. When another transaction is marking the same
	// event, InTx waits for its end, so that two never both take effect.
	//
	// When work fails, its error is returned as it is and everything is rolled
	// back, the mark too. A failed COMMIT may have taken effect: trying again
	// tells, since the mark then stands.
	InTx(ctx context.Context, handler, eventID string, work func(tx *sql.Tx) error) (ran bool, err error)
}

// retainer is an inbox that forgets. [New] compares it with
// [Options.ReplayWindow].
type retainer interface {
	// Retention is how long marks are kept; 0 means for ever.
	Retention() time.Duration
}
