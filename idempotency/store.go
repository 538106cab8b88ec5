package idempotency

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// ClaimID names one key in one scope: a keyed hash, so it tells nothing of
// either and no client can aim at another's. It stays the same over all
// attempts, and is what makes the steps behind repeatable: a unique column, the
// claim part of a reservation's ID, a payment provider's idempotency key.
type ClaimID [16]byte

// String returns the ID in 32 hexadecimal digits.
func (id ClaimID) String() string { return hex.EncodeToString(id[:]) }

// Fingerprint is a keyed hash of a payload.
type Fingerprint [16]byte

// Token names one attempt, and proves that a claim is held. Its first 6 bytes are
// when the attempt began, in ms by the clock of its process, and the rest is
// random, as in a UUID of version 7. The time serves to tell late claims from new
// ones where a store has no room for all the tokens that have ended: never to
// give a claim, at worst to refuse one for a while.
type Token [16]byte

// NewToken returns a token of an attempt that begins.
func NewToken(begun time.Time) (t Token) {
	binary.BigEndian.PutUint64(t[:], uint64(max(begun.UnixMilli(), 0))<<16)
	_, _ = rand.Read(t[6:]) // never fails
	return t
}

// Store keeps the records of a [Keeper]. It is a protocol, not a cache:
//
//   - Each method is one atomic step, judged by the store's clock only.
//   - Each is safe to send twice with the same token: the second answers as the
//     first and changes nothing.
//   - A step by a token that does not hold the record is [ErrStale] and changes
//     nothing for its holder.
//   - Calls overtake each other, and a client may send one again while the first
//     copy is still on its way. So an attempt that was answered without a claim,
//     or has ended, is over: its claim, whenever it lands, is answered and takes
//     nothing. See [Ended].
//   - Being refused a claim is no error: it is the [Record]'s Status.
//   - A record that can't be read is [ErrCorrupt], whatever the step.
//   - After any other error the outcome is unknown, unless it wraps [ErrNotSent].
//   - ctx bounds every call, also against a server that hangs.
//
// A store must be safe for concurrent use. Package idemtest has the suite that
// every store passes.
type Store interface {
	// Claim takes the key for one attempt, or says why not.
	Claim(ctx context.Context, req ClaimRequest) (Record, error)
	// Extend renews the lease of a running claim, from now on. A record that
	// the store has lost is written again.
	Extend(ctx context.Context, h Holder, t Terms) error
	// Settle ends a running claim, or the unknown one it became. A record that
	// the store has lost, or never had, is written: a release leaves word that
	// the attempt has ended, for the claim that comes after it. So does a step
	// that is ErrStale, except where the record is done.
	Settle(ctx context.Context, h Holder, s Settlement) error
}

// Terms are the times of a running claim. The store keeps milliseconds.
type Terms struct {
	Lease     time.Duration // how long the claim stands without a word from its holder
	Retention time.Duration // how long the record is kept after that, as unknown
	Linger    time.Duration // how long a claim may be on its way; see [Options.Linger]
}

// ClaimRequest asks for a claim.
type ClaimRequest struct {
	ID          ClaimID
	Fingerprint Fingerprint
	Token       Token
	Terms       Terms
	// Rerun lets the attempt take a claim whose outcome is unknown.
	Rerun bool
	// Look claims nothing and writes nothing. The answer is Absent where the key
	// was never seen, or each attempt was withdrawn; Seen where a claim might be
	// given; and else what a claim would hear.
	Look bool
	// Replace is the token of an unknown claim of which the caller knows that
	// it had no effect. It may be taken, and counts as if it had been released.
	Replace Token
}

// Status is the answer to a [ClaimRequest].
type Status uint8

// The answers. A released record is answered with Claimed.
const (
	Claimed  Status = iota + 1 // the caller holds the claim and has to run
	Running                    // another attempt holds it
	Done                       // finished; Result is what it left
	NotKept                    // finished; the result was not kept
	Mismatch                   // another payload, whatever the state
	Unknown                    // ended without a word, and Rerun was not set
	Absent                     // never seen, and Look was set
	// Ended says that this attempt is over: it was settled, withdrawn, or answered
	// without a claim before. The request is a copy that comes late, and has
	// taken nothing. A store remembers at least 16 ended tokens of a key as long
	// as its record. A claim that may be one of those it had no room for is
	// answered with Running, for Terms.Linger at most, whoever sent it.
	Ended
	Seen // free or unknown, and Look was set
)

// Record is what a store knows of a key.
type Record struct {
	Status  Status
	Attempt int           // of this key, from 1; of the holder, or the last one
	Started time.Time     // when attempt 1 claimed, on the store's clock
	Lease   time.Duration // Running: how long the lease is still good
	Token   Token         // Unknown: of the attempt that ended so
	Result  []byte        // Done
}

// Holder is the attempt that a claim was given to. The store compares ID and
// Token; the rest is for writing a record again that the store has lost.
type Holder struct {
	ID          ClaimID
	Token       Token
	Fingerprint Fingerprint
	// Attempt is 0 where the claim's answer was lost. Nothing ran then, and a
	// release withdraws the attempt: it is not counted, whether its claim has
	// landed, is still to land, or never will.
	Attempt int
	Started time.Time // of attempt 1
}

// Outcome is how a claim ends.
type Outcome uint8

// The outcomes.
const (
	OutcomeDone    Outcome = iota + 1 // Result is kept and replayed
	OutcomeNotKept                    // executed; the result is not kept
	// OutcomeReleased frees the key: nothing happened. Where an earlier
	// attempt ended unknown the record becomes unknown again instead, since
	// what this attempt says is not true of that one.
	OutcomeReleased
	OutcomeUnknown // nobody can say
)

// Settlement ends a claim.
type Settlement struct {
	Outcome   Outcome
	Result    []byte        // OutcomeDone; the store does not keep the slice, unless the call was given up
	Retention time.Duration // how long the record is kept
	// UnknownRetention is how long it is kept where a release leaves it unknown.
	UnknownRetention time.Duration
	Linger           time.Duration // as in [Terms]
}
