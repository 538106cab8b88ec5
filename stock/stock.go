package stock

import (
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// MaxQuantity is the largest number of units in a pool or a request: the
// largest integer that Lua and JSON both keep exactly.
const MaxQuantity = 1<<53 - 1

// MaxNameLength bounds the names of SKUs and buyers, in bytes.
const MaxNameLength = 255

// MaxItems is the largest number of SKUs in one pool.
const MaxItems = 64

// Pool says what is for sale and on which terms. A pool is the unit of
// atomicity: what is in one pool is reserved together or not at all. Most
// pools hold one SKU and bear its name; one that sells baskets has Items.
type Pool struct {
	SKU    string        // names the pool, and what it sells where Items is empty; required, at most 255 bytes
	Total  int64         // units for sale, 1 to MaxQuantity; with Items it is their sum and may be left out
	Items  []Item        // the SKUs of a pool that sells several, at most MaxItems; their order is part of the terms
	Limit  int64         // units one buyer may have held and bought, of all SKUs together; 0 means no limit
	Hold   time.Duration // how long a reservation is held; default 5 min, at least 1 ms
	Opens  time.Time     // no reservation before it, by the store's clock; zero means at once
	Closes time.Time     // no reservation from it on; zero means never
	Late   Late          // what becomes of a confirmation after the hold has ended, where there is no ledger
	Unpaid Unpaid        // what becomes of an order that is unpaid when its hold ends, where there is a ledger
}

// Item is one SKU of a pool that sells several.
type Item struct {
	SKU   string // unique in its pool
	Total int64  // units for sale, 1 to MaxQuantity
	Limit int64  // units of it that one buyer may have held and bought; 0 means no limit of its own
}

// Late is the policy on a confirmation (a payment that lands) after its hold
// has ended. With a ledger it does not apply: see [ID.Late].
type Late uint8

// The policies on late confirmations.
const (
	LateRefused Late = iota // [ErrExpired], and an [EventLate] tells once that the buyer is to be paid back
	LateIfFree              // confirmed where units are free, with Hold.Late set; else [ErrLate] and an EventLate
)

// Unpaid is the policy on an order that is committed to the ledger but not
// sold when its hold passes its time.
type Unpaid uint8

// The policies on unpaid orders.
const (
	LoseUnits Unpaid = iota // the order expires and its units go to the next buyer
	KeepUnits               // it keeps its units until it is sold or cancelled
)

// DefaultHold is how long a unit is held where [Pool.Hold] is zero.
const DefaultHold = 5 * time.Minute

// Normalize fills in defaults and reports the first field that is wrong.
func (p Pool) Normalize() (Pool, error) {
	if err := checkName("SKU", p.SKU); err != nil {
		return p, err
	}
	p, err := p.sumItems()
	if err != nil {
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
	if p.Hold < time.Millisecond || p.Hold > longest {
		return p, invalid("Hold is %v, want 1ms to 10 years", p.Hold)
	}
	if !p.Opens.IsZero() && !p.Closes.IsZero() && !p.Opens.Before(p.Closes) {
		return p, invalid("Closes is not after Opens")
	}
	if p.Late > LateIfFree {
		return p, invalid("Late is %d, want LateRefused or LateIfFree", p.Late)
	}
	if p.Unpaid > KeepUnits {
		return p, invalid("Unpaid is %d, want LoseUnits or KeepUnits", p.Unpaid)
	}
	p.Hold = p.Hold.Truncate(time.Millisecond)
	p.Opens, p.Closes = p.Opens.Truncate(time.Millisecond), p.Closes.Truncate(time.Millisecond)
	return p, nil
}

// longest is how long anything may last that counts in milliseconds.
const longest = 10 * 365 * 24 * time.Hour

// sumItems checks the items and sets Total to their sum.
func (p Pool) sumItems() (Pool, error) {
	if len(p.Items) == 0 {
		return p, nil
	}
	if len(p.Items) > MaxItems {
		return p, invalid("Items has %d SKUs, want at most %d", len(p.Items), MaxItems)
	}
	sum := int64(0)
	seen := make(map[string]bool, len(p.Items))
	for i, item := range p.Items {
		if err := checkName(fmt.Sprintf("Items[%d].SKU", i), item.SKU); err != nil {
			return p, err
		}
		switch {
		case seen[item.SKU]:
			return p, invalid("Items[%d].SKU stands twice", i)
		case item.Total < 1 || item.Total > MaxQuantity-sum:
			return p, invalid("Items[%d].Total is %d, want 1 to 2^53-1 in all", i, item.Total)
		case item.Limit < 0 || item.Limit > MaxQuantity:
			return p, invalid("Items[%d].Limit is %d, want 0 to 2^53-1", i, item.Limit)
		}
		seen[item.SKU] = true
		sum += item.Total
	}
	if only := p.Items[0]; len(p.Items) == 1 && only.Limit > 0 { // it is the pool's limit then
		if p.Limit == 0 || only.Limit < p.Limit {
			p.Limit = only.Limit
		}
		p.Items = []Item{{SKU: only.SKU, Total: only.Total}}
	}
	if p.Total != 0 && p.Total != sum {
		return p, invalid("Total is %d and the Items sum up to %d", p.Total, sum)
	}
	p.Total = sum
	return p, nil
}

// Line is some units of one SKU.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// Basket turns lines into units per item, in the order of [Pool.Items] (one
// item for a pool without them): lines of the same SKU are added up. A SKU that
// is not in the pool is an [*ItemError] that names it.
func (p *Pool) Basket(lines []Line) ([]int64, error) {
	units := make([]int64, max(1, len(p.Items)))
	sum := int64(0)
	for _, l := range lines {
		i := p.item(l.SKU)
		if i < 0 {
			return nil, &ItemError{SKU: l.SKU, Err: ErrUnknownSKU}
		}
		if l.Quantity < 1 || l.Quantity > MaxQuantity-sum {
			return nil, invalid("Quantity of %q is %d, want 1 to 2^53-1 in all", l.SKU, l.Quantity)
		}
		units[i] += l.Quantity
		sum += l.Quantity
	}
	if sum == 0 {
		return nil, invalid("there are no lines")
	}
	return units, nil
}

// Lines is the reverse of [Pool.Basket]: one line for each item of which there
// are units. It is nil for a pool without Items.
func (p *Pool) Lines(units []int64) []Line {
	if len(p.Items) == 0 {
		return nil
	}
	var lines []Line
	for i, n := range units {
		if n != 0 {
			lines = append(lines, Line{SKU: p.Items[i].SKU, Quantity: n})
		}
	}
	return lines
}

func (p *Pool) item(sku string) int {
	if len(p.Items) == 0 {
		if sku == p.SKU || sku == "" {
			return 0
		}
		return -1
	}
	for i := range p.Items {
		if p.Items[i].SKU == sku {
			return i
		}
	}
	return -1
}

// Same reports whether two pools have the same terms.
func (p *Pool) Same(q *Pool) bool {
	return p.SKU == q.SKU && p.Total == q.Total && slices.Equal(p.Items, q.Items) && p.Limit == q.Limit &&
		p.Hold == q.Hold && p.Opens.Equal(q.Opens) && p.Closes.Equal(q.Closes) && p.Late == q.Late && p.Unpaid == q.Unpaid
}

// Request asks for units.
type Request struct {
	ID       ID     // made by [NewID] of SKU and Buyer; the same ID is the same request
	SKU      string // which pool
	Buyer    string // whose limit counts; never taken from a client unchecked
	Quantity int64  // 1 to MaxQuantity; with Lines it is their sum and may be left out
	Lines    []Line // what of a pool with Items: all of it is held, or nothing

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
	if err := r.checkQuantity(); err != nil {
		return err
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

func (r *Request) checkQuantity() error {
	if len(r.Lines) == 0 {
		if r.Quantity < 1 || r.Quantity > MaxQuantity {
			return invalid("Quantity is %d, want 1 to 2^53-1", r.Quantity)
		}
		return nil
	}
	sum := int64(0)
	for i, l := range r.Lines {
		if err := checkName(fmt.Sprintf("Lines[%d].SKU", i), l.SKU); err != nil {
			return err
		}
		if l.Quantity < 1 || l.Quantity > MaxQuantity-sum {
			return invalid("Lines[%d].Quantity is %d, want 1 to 2^53-1 in all", i, l.Quantity)
		}
		sum += l.Quantity
	}
	if r.Quantity != 0 && r.Quantity != sum {
		return invalid("Quantity is %d and the Lines sum up to %d", r.Quantity, sum)
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
	Quantity int64  // units that it stands for now
	Lines    []Line // the same by SKU, for a pool with Items
	Released []Line // what a part confirmation gave back; with the above it is what was asked
	State    State
	Expires  time.Time // when the promise ends, by the store's clock; of an ended one, when it ended
	Epoch    int64     // the pool's epoch; the order's transaction passes it to the ledger
	Seq      int64     // the pool's sequence number seen with this answer
	Repeated bool      // the ID was known already; State is its state now
	Late     bool      // sold after its hold had ended, by [LateIfFree]
	Replicas int       // replicas that hold this answer; fewer than asked for is the weaker grade, and the ID may be sent again
}

// Asked is how many units the reservation was made for.
func (h *Hold) Asked() int64 {
	n := h.Quantity
	for _, l := range h.Released {
		n += l.Quantity
	}
	return n
}

// Levels counts a pool's units: Free + Held + Sold = Total + Over, always.
// Units past their time count as held until someone frees them.
type Levels struct {
	SKU     string       `json:"sku"`
	Total   int64        `json:"total"`
	Free    int64        `json:"free"`
	Held    int64        `json:"held"`
	Sold    int64        `json:"sold"`
	Over    int64        `json:"over,omitempty"` // held and sold beyond a total that was lowered; freed units go there first
	Paused  bool         `json:"paused,omitempty"`
	Version int64        `json:"version"`         // of the terms; see [Adjustment]
	Items   []ItemLevels `json:"items,omitempty"` // for a pool with Items
}

// ItemLevels counts the units of one SKU of a pool, as [Levels] does.
type ItemLevels struct {
	SKU   string `json:"sku"`
	Total int64  `json:"total"`
	Free  int64  `json:"free"`
	Held  int64  `json:"held"`
	Sold  int64  `json:"sold"`
	Over  int64  `json:"over,omitempty"`
}

// Store promises units and keeps its promises. Each method is one atomic step
// and safe to repeat. It is implemented by package redisstock.
type Store interface {
	// Open creates the pool, or confirms that it was opened with the same
	// terms (then it changes nothing and returns the levels as they are now,
	// after all adjustments). With other terms it returns [ErrPoolExists]. A
	// pool that the ledger knows and the store lacks is [ErrFenced], never
	// created anew: see Rebuild.
	Open(ctx context.Context, p Pool) (Levels, error)

	// Reserve holds units for a buyer: all lines, or nothing. A known ID is
	// not an error: it returns the recorded reservation in its state now,
	// with Repeated set.
	//
	// The order of answers, first that applies: malformed or mismatched ID;
	// unknown SKU; fenced; known ID; too old; paused, not open, closed;
	// deadline passed; buyer's limit; journal full; sold out, or all held.
	// Units past their time are taken over inside the call. For a pool with
	// Items the last three are an [*ItemError] that names the SKU.
	Reserve(ctx context.Context, r Request) (Hold, error)

	// Confirm makes a hold final: all of it, or the given part, and the rest
	// is free again in the same step. For a pool without Items a part is one
	// line, whose SKU may be empty. Confirming the same twice is success,
	// another part is a [*MismatchError]. What comes after the hold's end is
	// answered by the pool's [Late] policy, the same each time. Where the pool
	// has a ledger, sell there first, in the order's own transaction: it is the
	// ledger that decides, and Confirm follows it.
	Confirm(ctx context.Context, id ID, part ...Line) (Hold, error)

	// Cancel gives held units back, and the buyer's allowance with them.
	// Cancelling twice is success; after Confirm it is [ErrConfirmed].
	Cancel(ctx context.Context, id ID) (Hold, error)

	// Extend moves the end of a live hold to the given time by the store's
	// clock, for instance hold.Expires plus a minute; an earlier time than it
	// has changes nothing. The hold of an order in a ledger is extended there
	// too, by whoever placed it.
	Extend(ctx context.Context, id ID, until time.Time) (Hold, error)

	// Return gives sold units back for sale, once per ID.
	Return(ctx context.Context, id ID) (Hold, error)

	// Lookup returns the reservation in its state now, or [ErrNotFound].
	Lookup(ctx context.Context, id ID) (Hold, error)

	// Levels returns the exact counts in constant time.
	Levels(ctx context.Context, sku string) (Levels, error)

	// Adjust changes the terms of a pool while it sells.
	Adjust(ctx context.Context, a Adjustment) (Levels, error)

	// Rebuild restores a fenced pool from the ledger, in a new epoch, and
	// opens it. Holds without a committed order are gone after it, and their
	// orders are refused. It is safe to call from several processes at once.
	Rebuild(ctx context.Context, sku string) (Levels, error)

	// Audit compares the pool's counts, its reservations and its ledger. The
	// pool goes on selling meanwhile.
	Audit(ctx context.Context, sku string) (Audit, error)

	// Reconcile repairs what an audit finds and says what it did. Where there
	// is a ledger, the ledger is right.
	Reconcile(ctx context.Context, sku string) (Audit, error)

	// Retire forgets a pool that is over: paused or closed, nothing held, its
	// journal relayed and its audit clean; else it is [ErrInUse]. With a
	// ledger its name is refused from then on ([ErrRetired]) and its rows stay;
	// without one, nothing remembers it.
	Retire(ctx context.Context, sku string) error
}
