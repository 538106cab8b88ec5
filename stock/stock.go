package stock

import (
	"context"
	"time"
	"unicode/utf8"
)

// MaxQuantity is the largest number of units in a pool or a request: the
// largest integer that Lua and JSON both keep exactly.
const MaxQuantity = 1<<53 - 1

// MaxNameLength bounds the names of SKUs and buyers, in bytes.
const MaxNameLength = 255

// Pool says what is for sale and on which terms. A pool is the unit of
// atomicity; it holds one SKU and bears its name.
type Pool struct {
	SKU    string        // required; at most 255 bytes
	Total  int64         // units for sale; required, 1 to MaxQuantity
	Limit  int64         // units one buyer may have held and bought; 0 means no limit
	Hold   time.Duration // how long a reservation is held; default 5 min, at least 1 ms
	Opens  time.Time     // no reservation before it, by the store's clock; zero means at once
	Closes time.Time     // no reservation from it on; zero means never
}

// DefaultHold is how long a unit is held where [Pool.Hold] is zero.
const DefaultHold = 5 * time.Minute

// Normalize fills in defaults and reports the first field that is wrong.
func (p Pool) Normalize() (Pool, error) {
	if err := checkName("SKU", p.SKU); err != nil {
		return p, err
	}
	if p.Total < 1 || p.Total > MaxQuantity {
		return p, invalid("Total is %d, want 1 to 2^53-1", p.Total)
	}
	if p.Limit < 0 || p.Limit > MaxQuantity {
		return p, invalid("Limit is %d, want 0 to 2^53-1", p.Limit)
	}
	if p.Hold == 0 {
		p.Hold = DefaultHold
	}
	if p.Hold < time.Millisecond || p.Hold > 10*365*24*time.Hour {
		return p, invalid("Hold is %v, want 1ms to 10 years", p.Hold)
	}
	if !p.Opens.IsZero() && !p.Closes.IsZero() && !p.Opens.Before(p.Closes) {
		return p, invalid("Closes is not after Opens")
	}
	p.Hold = p.Hold.Truncate(time.Millisecond)
	p.Opens, p.Closes = p.Opens.Truncate(time.Millisecond), p.Closes.Truncate(time.Millisecond)
	return p, nil
}

// Request asks for units.
type Request struct {
	ID       ID     // made by [NewID] of SKU and Buyer; the same ID is the same request
	SKU      string // which pool
	Buyer    string // whose limit counts; never taken from a client unchecked
	Quantity int64  // 1 to MaxQuantity

	// Deadline refuses the attempt after this time by the store's clock, so
	// that a delayed copy of it has no effect. Zero means none.
	Deadline time.Time
	// Born is when the claim of this attempt was first seen (idempotency's
	// Claim.Started). An attempt older than the store's retention is refused
	// as too late, since the memory of its outcome may be gone. Zero means now.
	Born time.Time
	// First marks an attempt that surely was never sent before (a fresh
	// claim). Only such an attempt may be refused from this process' memory.
	First bool
}

// Validate reports the first field that is wrong.
func (r *Request) Validate() error {
	if err := checkName("SKU", r.SKU); err != nil {
		return err
	}
	if err := checkName("Buyer", r.Buyer); err != nil {
		return err
	}
	if r.Quantity < 1 || r.Quantity > MaxQuantity {
		return invalid("Quantity is %d, want 1 to 2^53-1", r.Quantity)
	}
	want := NewID(r.SKU, r.Buyer, r.ID.ClaimPart())
	if r.ID.ClaimPart() == [claimPart]byte{} {
		return invalid("ID has no claim")
	}
	if r.ID.BuyerPart() != want.BuyerPart() {
		return &MismatchError{Field: "buyer"}
	}
	if r.ID.PoolPart() != want.PoolPart() {
		return &MismatchError{Field: "sku"}
	}
	return nil
}

func checkName(field, name string) error {
	switch {
	case name == "":
		return invalid("%s is empty", field)
	case len(name) > MaxNameLength:
		return invalid("%s has %d bytes, want at most %d", field, len(name), MaxNameLength)
	case !utf8.ValidString(name):
		return invalid("%s is not valid UTF-8", field)
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return invalid("%s holds a control character", field)
		}
	}
	return nil
}

// State is where a reservation stands.
type State uint8

// The states of a reservation.
const (
	Held      State = iota + 1 // promised until Hold.Expires
	Sold                       // confirmed
	Cancelled                  // given back before it was sold
	Expired                    // ran out before it was sold
	Returned                   // given back after it was sold
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case Held:
		return "held"
	case Sold:
		return "sold"
	case Cancelled:
		return "cancelled"
	case Expired:
		return "expired"
	case Returned:
		return "returned"
	default:
		return "unknown"
	}
}

// Hold is a reservation as the store knows it.
type Hold struct {
	ID       ID
	SKU      string
	Quantity int64
	State    State
	Expires  time.Time // when the promise ends, by the store's clock
	Epoch    int64     // the pool's epoch; the order's transaction passes it to the ledger
	Seq      int64     // the pool's sequence number seen with this answer
	Repeated bool      // the ID was known already; State is its state now
}

// Levels counts a pool's units: Free + Held + Sold = Total, always. Units
// past their time count as held until someone frees them.
type Levels struct {
	SKU   string `json:"sku"`
	Total int64  `json:"total"`
	Free  int64  `json:"free"`
	Held  int64  `json:"held"`
	Sold  int64  `json:"sold"`
}

// Store promises units and keeps its promises. Each method is one atomic step
// and safe to repeat. It is implemented by package redisstock.
type Store interface {
	// Open creates the pool, or confirms that it stands with the same terms
	// (then it changes nothing and returns the levels as they are now). With
	// other terms it returns [ErrPoolExists]. A pool that the ledger knows and
	// the store lacks is [ErrFenced], never created anew: see Rebuild.
	Open(ctx context.Context, p Pool) (Levels, error)

	// Reserve holds units for a buyer. A known ID is not an error: it returns
	// the recorded reservation in its state now, with Repeated set.
	//
	// The order of answers, first that applies: malformed or mismatched ID;
	// unknown SKU; fenced; known ID; too old; not open, closed; deadline
	// passed; buyer's limit; journal full; all held, or sold out.
	// Units past their time are taken over inside the call.
	Reserve(ctx context.Context, r Request) (Hold, error)

	// Confirm makes a hold final. Confirming twice is success. Where the pool
	// has a ledger, sell there first, in the order's own transaction: it is
	// the ledger that decides, and Confirm follows it.
	Confirm(ctx context.Context, id ID) (Hold, error)

	// Cancel gives held units back, and the buyer's allowance with them.
	// Cancelling twice is success; after Confirm it is [ErrConfirmed].
	Cancel(ctx context.Context, id ID) (Hold, error)

	// Return gives sold units back for sale, once per ID.
	Return(ctx context.Context, id ID) (Hold, error)

	// Lookup returns the reservation in its state now, or [ErrNotFound].
	Lookup(ctx context.Context, id ID) (Hold, error)

	// Levels returns the exact counts in constant time.
	Levels(ctx context.Context, sku string) (Levels, error)

	// Rebuild restores a fenced pool from the ledger, in a new epoch, and
	// opens it. Holds without a committed order are gone after it, and their
	// orders are refused. It is safe to call from several processes at once.
	Rebuild(ctx context.Context, sku string) (Levels, error)
}
