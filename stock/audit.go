package stock

import "fmt"

// Audit is what a pool's books say: the store's counts, the sum of its
// reservations, and the ledger.
type Audit struct {
	Levels  Levels  // as the store counts
	Ledger  *Totals // as the ledger counts; nil without one
	Held    int64   // sum of the store's reservations that are held
	Sold    int64   // and of those that are sold
	Looked  int64   // reservations looked at
	Changed bool    // the pool changed while it was read, so the sums above may differ from the counts
	Faults  []Fault // at most 1,000
	Repairs []Repair
	More    bool // there are more faults than are listed
}

// Clean reports that nothing was found wrong.
func (a *Audit) Clean() bool { return len(a.Faults) == 0 }

// Fault is one thing that does not agree, after it was read twice.
type Fault struct {
	ID    ID     // the reservation; zero where it is not about one
	Buyer []byte // the buyer's part of an ID, where it is about one buyer's sum
	Kind  FaultKind
	Store State // as the store has it; zero for none
	Truth State // as the ledger has it; zero for none
	Text  string
}

func (f Fault) String() string {
	if f.ID.IsZero() {
		return fmt.Sprintf("%v: %s", f.Kind, f.Text)
	}
	return fmt.Sprintf("%v: %v: %s", f.Kind, f.ID, f.Text)
}

// FaultKind says what does not agree.
type FaultKind uint8

// The kinds of fault.
const (
	FaultRecord FaultKind = iota + 1 // a record can't be read
	FaultCount                       // the counts are not the sum of the reservations
	FaultLimit                       // a buyer has more than the limit
	FaultStray                       // a hold is in no index of expiries, so nobody would end it
	FaultLedger                      // store and ledger differ about a reservation
	FaultTotals                      // the ledger's counts are not the sum of its rows, or more than there is
)

// String returns the kind's name in lower case.
func (k FaultKind) String() string {
	switch k {
	case FaultRecord:
		return "record"
	case FaultCount:
		return "count"
	case FaultLimit:
		return "limit"
	case FaultStray:
		return "stray"
	case FaultLedger:
		return "ledger"
	case FaultTotals:
		return "totals"
	default:
		return "unknown"
	}
}

// Repair is what [Store.Reconcile] did about a fault.
type Repair struct {
	Fault Fault
	Done  bool   // false where it can't be mended by itself
	Text  string // what was done, or why nothing
}
