package stock

import (
	"context"
	"time"
)

// Mark says how far a pool's history is known: its epoch, which each Rebuild
// raises, and the highest sequence number recorded in that epoch.
type Mark struct {
	Epoch int64
	Seq   int64
}

// Verdict is the ledger's word on a hold that is past its time.
type Verdict uint8

// The verdicts.
const (
	Undecided Verdict = iota // an order transaction is still open: ask again later, alone
	Free                     // voided or expired: the unit may be sold to another
	Keep                     // an order stands unpaid and the pool's policy keeps its unit
	IsSold                   // sold in the ledger: the store had not heard yet
)

// Entry is one reservation as the ledger keeps it.
type Entry struct {
	ID       ID
	Buyer    string
	Quantity int64  // units that it stands for now
	Lines    []Line // the same by SKU, for a pool with Items
	Released []Line // what was given back when a part of it was sold
	Expires  time.Time
	State    State // zero where the ledger has no row
}

// Totals are a pool's units as the ledger counts them.
type Totals struct {
	Total int64        `json:"total"`           // for sale
	Held  int64        `json:"held"`            // in orders that are not yet final
	Sold  int64        `json:"sold"`            // in final orders
	Items []ItemTotals `json:"items,omitempty"` // for a pool with Items
}

// ItemTotals are the units of one SKU of a pool, as [Totals] has them.
type ItemTotals struct {
	SKU   string `json:"sku"`
	Total int64  `json:"total"`
	Held  int64  `json:"held"`
	Sold  int64  `json:"sold"`
}

// Ledger keeps in SQL what was promised and sold. The store asks it; an order's
// transaction writes it (see package sqlledger, which implements it). The
// store decides fast and may lose its last writes; the ledger decides last.
type Ledger interface {
	// Open records the pool in epoch 1 and terms in version 1, or returns what
	// is recorded: existed is true then, also when it was opened with other
	// terms than p ([ErrPoolExists]). Later adjustments don't count as other
	// terms. A retired pool is [ErrRetired].
	Open(ctx context.Context, p Pool) (terms Terms, mark Mark, existed bool, err error)

	// Pool returns the terms as they are now and the mark, or [ErrUnknownSKU].
	Pool(ctx context.Context, sku string) (Terms, Mark, error)

	// Pools returns the names of all pools that are not retired.
	Pools(ctx context.Context) ([]string, error)

	// Adjust records the terms after [Terms.Adjust], once per a.ID. Fewer
	// units than it counts as sold are an [*OverError], also with Force.
	Adjust(ctx context.Context, a Adjustment) (Terms, error)

	// Retire marks the pool as over, in which the store has nothing held.
	// Orders still held in the ledger are [ErrInUse].
	Retire(ctx context.Context, sku string) error

	// SaveMark records that seq was reached in the mark's epoch. A lower one
	// than recorded changes nothing; so does another epoch.
	SaveMark(ctx context.Context, sku string, m Mark) error

	// Expire decides which of the holds that are past their time may go, by
	// writing: it voids IDs that have no order yet, so that an order still on
	// its way is refused as too late. The verdicts stand in the order of ids.
	// Units that it frees are free in the ledger when it returns.
	Expire(ctx context.Context, sku string, ids []ID) ([]Verdict, error)

	// RaiseEpoch ends epoch from: orders promised in it can't commit any more.
	// Only one caller succeeds; for another epoch than from it returns the
	// mark as it is and raised = false.
	RaiseEpoch(ctx context.Context, sku string, from int64) (mark Mark, raised bool, err error)

	// Entries returns up to n entries in state Held or Sold, in the order of
	// their IDs, after the given one (the zero ID starts).
	Entries(ctx context.Context, sku string, after ID, n int) ([]Entry, error)

	// Find returns the entries of the given IDs, in their order and any state.
	Find(ctx context.Context, sku string, ids []ID) ([]Entry, error)

	// Totals sums the pool in one consistent read.
	Totals(ctx context.Context, sku string) (Totals, error)
}
