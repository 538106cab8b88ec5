package stock

import (
	"slices"
	"time"
)

// Adjustment changes the terms of a pool. What it says is relative to the
// version that it was decided on, so that no change is lost or made twice.
type Adjustment struct {
	ID      [16]byte // names the change, made by the caller before the first try; a repeat finds it done
	SKU     string   // which pool
	Version int64    // [Levels].Version when it was decided; if it is another now, [ErrVersion]

	// Add adds units, or takes them out where the quantity is negative. For a
	// pool without Items it is one line, whose SKU may be empty. Only free
	// units can be taken out, else it is [ErrOver]; unless Force is set: then
	// what is freed later is taken out first (see Levels.Over). Sold units
	// stay sold in any case.
	Add   []Line
	Force bool

	Pause, Resume bool // no reservation is taken while paused; holds live on and may be confirmed

	// New times, by the store's clock; nil leaves one as it is, and the zero
	// time removes it.
	Opens, Closes *time.Time
}

// Validate reports the first field that is wrong.
func (a *Adjustment) Validate() error {
	if err := checkName("SKU", a.SKU); err != nil {
		return err
	}
	switch {
	case a.ID == [16]byte{}:
		return invalid("ID is not set")
	case a.Version < 1:
		return invalid("Version is %d, want at least 1", a.Version)
	case a.Pause && a.Resume:
		return invalid("Pause and Resume are both set")
	case len(a.Add) == 0 && !a.Pause && !a.Resume && a.Opens == nil && a.Closes == nil:
		return invalid("there is nothing to change")
	}
	for _, l := range a.Add {
		if l.Quantity == 0 || l.Quantity > MaxQuantity || l.Quantity < -MaxQuantity {
			return invalid("Add of %q is %d, want 1 to 2^53-1 or the same below zero", l.SKU, l.Quantity)
		}
	}
	return nil
}

// Terms are a pool's terms as they stand after all adjustments.
type Terms struct {
	Pool
	Version  int64    // 1 when it was opened, one more with each adjustment
	Adjusted [16]byte // the ID of the last adjustment
	Paused   bool
	Retired  bool
}

// Adjust returns the terms after the adjustment. It does not look at what is
// held or sold. Terms that the same adjustment has made are returned as they
// are, with again set.
func (t Terms) Adjust(a *Adjustment) (next Terms, again bool, err error) {
	if err := a.Validate(); err != nil {
		return t, false, err
	}
	if t.Retired {
		return t, false, ErrRetired
	}
	if t.Adjusted == a.ID && t.Version == a.Version+1 {
		return t, true, nil
	}
	if t.Version != a.Version {
		return t, false, &VersionError{Version: t.Version}
	}
	next = t
	next.Version, next.Adjusted = t.Version+1, a.ID
	next.Paused = t.Paused && !a.Resume || a.Pause
	next.Items = slices.Clone(t.Items)
	for _, l := range a.Add {
		if err := next.add(l); err != nil {
			return t, false, err
		}
	}
	if a.Opens != nil {
		next.Opens = a.Opens.Truncate(time.Millisecond)
	}
	if a.Closes != nil {
		next.Closes = a.Closes.Truncate(time.Millisecond)
	}
	if !next.Opens.IsZero() && !next.Closes.IsZero() && !next.Opens.Before(next.Closes) {
		return t, false, invalid("Closes would not be after Opens")
	}
	return next, false, nil
}

func (t *Terms) add(l Line) error {
	i := t.item(l.SKU)
	if i < 0 {
		return &ItemError{SKU: l.SKU, Err: ErrUnknownSKU}
	}
	total := &t.Total
	if len(t.Items) > 0 {
		total = &t.Items[i].Total
		t.Total += l.Quantity
	}
	*total += l.Quantity
	if *total < 0 || t.Total > MaxQuantity {
		return invalid("the total would be %d, want 0 to 2^53-1", *total)
	}
	return nil
}
