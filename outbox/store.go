package outbox

import (
	"context"
	"errors"
	"time"
)

// Store is what a [Relay] needs of the place where messages wait. Each method
// is one atomic step (Lease: several, each safe alone); none holds a
// transaction, a lock or a connection after it returned. Time is the store's
// own clock. sqloutbox has one; outboxtest holds what every one must do.
type Store interface {
	// Lease says that the relay lives, gives back the lanes in
	// req.Release, renews the lanes that it owns and takes free or
	// expired ones until it owns [Share] of them. A lane that changes
	// hands gets a higher epoch. Owning more than the share, or no lane
	// at all, is no error.
	Lease(ctx context.Context, req LeaseRequest) (Leases, error)

	// Leave forgets a relay and gives back all its lanes but those in keep,
	// whose leases end by themselves. Leaving twice, or without ever having
	// come, is no error.
	Leave(ctx context.Context, relay string, keep []int) error

	// Read returns one page per window, in the order of the windows:
	// committed rows by rising seq. It locks nothing and changes
	// nothing. When req.MaxBytes of payload were read it stops, and what
	// it did not reach has More set; it reads one row at least.
	Read(ctx context.Context, req ReadRequest) ([]Page, error)

	// Settle deletes exactly the named rows, those whose lane the
	// relay still owns at that epoch and whose ID is the one named, and
	// adds them to the count of relayed ones. It returns how many rows
	// it deleted. Rows already gone are no error; nor is a lost lane.
	Settle(ctx context.Context, relay string, receipts []Receipt) (int, error)

	// Park moves rows of one lane out of the queue: one that was given
	// up with its error, or those that wait behind it. ErrFenced when
	// the lane is not owned at that epoch any more, or when an operator's
	// hand moved rows since the page was read (Rewinds); nothing is
	// changed then.
	Park(ctx context.Context, relay string, parking Parking) (int, error)

	// Stats counts what stands in the store now.
	Stats(ctx context.Context) (Stats, error)
}

// Operator is the part of a store that people use to look after what was
// parked. It works while relays run.
type Operator interface {
	// Parked lists parked and held messages by rising seq, after the
	// given one, at most limit (0 means 100, at most 1000).
	Parked(ctx context.Context, after int64, limit int) ([]ParkedMessage, error)

	// Requeue puts a parked message back into the queue at its old place
	// in its key's order, and those held behind it after it. It
	// returns how many messages went back. [ErrNotParked] when there is none.
	Requeue(ctx context.Context, seq int64) (int, error)

	// Drop deletes a parked message for good; those held behind it go
	// back into the queue. [ErrNotParked] when there is none.
	Drop(ctx context.Context, seq int64) error
}

// Errors of a store.
var (
	ErrFenced    = errors.New("outbox: lane not owned")
	ErrNotParked = errors.New("outbox: no such parked message")
)

// LeaseRequest is one heartbeat of a relay.
type LeaseRequest struct {
	Relay   string        // who: unique per run of a relay
	TTL     time.Duration // how long the lease holds from now
	Release []int         // lanes it has drained and gives back
}

// Leases is what a relay owns after a heartbeat.
type Leases struct {
	Lanes  []Lease
	Relays int // relays alive now, the asker among them
}

// Lease is one lane owned. Epoch rises each time the lane changes hands; Rewinds
// is that of [Page], read before the first row of the lane is.
type Lease struct {
	Lane    int
	Epoch   int64
	Rewinds int64
}

// Window asks for rows of one lane: After < seq <= Until, at most Limit.
type Window struct {
	Lane  int
	After int64
	Until int64 // math.MaxInt64 for no end
	Limit int
}

// ReadRequest is a read of many lanes in one trip.
type ReadRequest struct {
	Windows  []Window
	MaxBytes int // payload bytes after which reading stops
}

// Page answers one [Window].
type Page struct {
	Lane int

	// Rewinds counts how often an operator put rows back into the lane. It is
	// read after the rows (or with them), never before: a reader that sees the
	// count unchanged has missed no row below its position by such a move.
	Rewinds int64

	Rows []Row

	// More is set when the page ended at its limit, so that rows may follow.
	More bool
}

// Row is one message as it stands in the queue.
type Row struct {
	Lane   int
	Seq    int64 // its place; falls and gaps mean nothing, only greater and smaller
	Format int   // version of the stored record; this package writes and reads 1
	Message
	Age  time.Duration // since it was written, by the store's clock, when read
	Held bool          // an earlier message of its key is parked
}

// Receipt names one row that the broker acknowledged.
type Receipt struct {
	Lane  int
	Epoch int64
	Seq   int64
	ID    string
}

// Parking names rows to move out of the queue.
type Parking struct {
	Lane    int
	Epoch   int64
	Rewinds int64 // as read with the rows
	Seqs    []int64

	// Held says that the rows wait behind a parked one of their key; they are
	// moved only where that is still so. Else they are given up, with
	// Attempts and Reason.
	Held     bool
	Attempts int
	Reason   string
}

// ParkedMessage is a message out of the queue.
type ParkedMessage struct {
	Seq      int64
	Message  Message
	Held     bool          // waits behind a parked one of its key; else given up itself
	Attempts int           // publishing attempts, 0 when held
	Reason   string        // the last error, cut at 1,000 bytes
	Age      time.Duration // since it was parked, by the store's clock
}

// Stats is the state of the queue, all of it from the store: with the number
// of messages that the application wrote (its own rows tell),
//
//	written = Relayed + Pending + Parked + Held + Dropped
//
// holds at every moment at which no transaction is open.
type Stats struct {
	Pending int64 // committed and not yet relayed
	Parked  int64 // given up after all attempts
	Held    int64 // behind a parked one of their key
	Relayed int64 // acknowledged by the broker and deleted, since ever
	Dropped int64 // deleted by an operator, since ever

	Oldest time.Duration // age of the oldest pending message, by the store's clock; 0 without any
	Relays int           // relays alive
	Owned  int           // lanes with a living owner, of [Lanes]
}
