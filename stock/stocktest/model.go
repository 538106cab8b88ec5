// Package stocktest tests a [stock.Store]: a small reference model ([Model]), a
// suite of sentences that every store must fulfil ([Run]), random sequences of
// operations compared with the model ([Random]), and a check that what
// concurrent callers heard, also over lost replies, can be explained by single
// steps of the model ([History]).
package stocktest

import (
	"slices"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Model is what a pool without a ledger does, said as plainly as possible: one
// caller at a time, no memory limits, no failures. Now moves only when told to.
type Model struct {
	Terms   stock.Terms
	Now     time.Time
	records map[stock.ID]record
}

// record is one reservation. Units are by item.
type record struct {
	buyer       string
	asked, back []int64
	state       stock.State
	expires     time.Time
	late        bool // sold late, or refused as late
}

// units is what the reservation stands for now.
func (r *record) units() []int64 {
	units := slices.Clone(r.asked)
	for i := range r.back {
		units[i] -= r.back[i]
	}
	return units
}

// takes reports whether its units are held or sold.
func (r *record) takes() bool { return r.state == stock.Held || r.state == stock.Sold }

// NewModel opens a pool; p must be normalized.
func NewModel(p stock.Pool, now time.Time) *Model {
	return &Model{Terms: stock.Terms{Pool: p, Version: 1}, Now: now, records: make(map[stock.ID]record)}
}

// items are the pool's SKUs with what each has for sale.
func (m *Model) items() []stock.Item {
	if len(m.Terms.Items) > 0 {
		return m.Terms.Items
	}
	return []stock.Item{{SKU: m.Terms.SKU, Total: m.Terms.Total}}
}

// expire ends what is past its time.
func (m *Model) expire() {
	for id, r := range m.records {
		if r.state == stock.Held && !r.expires.After(m.Now) {
			r.state = stock.Expired
			m.records[id] = r
		}
	}
}

// free is how many units of each item are neither held nor sold; below zero
// where the total was lowered further than that.
func (m *Model) free() []int64 {
	var free []int64
	for _, item := range m.items() {
		free = append(free, item.Total)
	}
	for _, r := range m.records {
		for i, n := range r.units() {
			if r.takes() {
				free[i] -= n
			}
		}
	}
	return free
}

// Levels counts the pool. Unlike a store it sees at once what has expired.
func (m *Model) Levels() stock.Levels {
	m.expire()
	l := stock.Levels{SKU: m.Terms.SKU, Total: m.Terms.Total, Paused: m.Terms.Paused, Version: m.Terms.Version}
	for _, n := range m.free() {
		l.Free, l.Over = l.Free+max(n, 0), l.Over+max(-n, 0)
	}
	for _, r := range m.records {
		for _, n := range r.units() {
			switch r.state {
			case stock.Held:
				l.Held += n
			case stock.Sold:
				l.Sold += n
			}
		}
	}
	return l
}

// taken is what a buyer has held and bought, by item and in all.
func (m *Model) taken(buyer string) (units []int64, sum int64) {
	units = make([]int64, len(m.items()))
	for _, r := range m.records {
		if r.buyer == buyer && r.takes() {
			for i, n := range r.units() {
				units[i] += n
				sum += n
			}
		}
	}
	return units, sum
}

// overLimit is the refusal if a buyer took so much more, or nil.
func (m *Model) overLimit(buyer string, units []int64) error {
	taken, all := m.taken(buyer)
	if limit := m.Terms.Limit; limit > 0 && all+total(units) > limit {
		return &stock.LimitError{Remaining: max(limit-all, 0)}
	}
	for i, item := range m.Terms.Items {
		if item.Limit > 0 && units[i] > 0 && taken[i]+units[i] > item.Limit {
			return &stock.ItemError{SKU: item.SKU, Err: &stock.LimitError{Remaining: max(item.Limit-taken[i], 0)}}
		}
	}
	return nil
}

func total(units []int64) (sum int64) {
	for _, n := range units {
		sum += n
	}
	return sum
}

// noRoom is the refusal where too few units are free, or nil: sold out before
// all held.
func (m *Model) noRoom(units []int64) error {
	free, lacking := m.free(), -1
	for i, n := range units {
		if n == 0 || free[i] >= n {
			continue
		}
		held := int64(0)
		for _, r := range m.records {
			if r.state == stock.Held {
				held += r.units()[i]
			}
		}
		if free[i]+held < n {
			return m.about(i, stock.ErrSoldOut)
		}
		if lacking < 0 {
			lacking = i
		}
	}
	if lacking < 0 {
		return nil
	}
	return m.about(lacking, &stock.AllHeldError{RetryAfter: m.nextExpiry(lacking)})
}

func (m *Model) about(item int, err error) error {
	if len(m.Terms.Items) == 0 {
		return err
	}
	return &stock.ItemError{SKU: m.Terms.Items[item].SKU, Err: err}
}

// nextExpiry is the time until the earliest live hold of an item ends.
func (m *Model) nextExpiry(item int) time.Duration {
	best := time.Duration(-1)
	for _, r := range m.records {
		if d := r.expires.Sub(m.Now); r.state == stock.Held && r.asked[item] > 0 && (best < 0 || d < best) {
			best = d
		}
	}
	return best
}

// Reserve answers as [stock.Store.Reserve] must.
func (m *Model) Reserve(r stock.Request) (stock.State, error) {
	if err := r.Validate(); err != nil {
		return 0, err
	}
	units := []int64{r.Quantity}
	if len(r.Lines) > 0 {
		var err error
		if units, err = m.Terms.Basket(r.Lines); err != nil {
			return 0, err
		}
	}
	m.expire()
	if old, ok := m.records[r.ID]; ok {
		if !slices.Equal(old.asked, units) {
			return 0, m.mismatch()
		}
		return old.state, nil
	}
	if err := m.shut(&r); err != nil {
		return 0, err
	}
	if err := m.overLimit(r.Buyer, units); err != nil {
		return 0, err
	}
	if err := m.noRoom(units); err != nil {
		return 0, err
	}
	m.records[r.ID] = record{buyer: r.Buyer, asked: units, state: stock.Held, expires: m.Now.Add(m.Terms.Hold)}
	return stock.Held, nil
}

// shut is the refusal at times when nothing is sold, or nil.
func (m *Model) shut(r *stock.Request) error {
	switch t := &m.Terms; {
	case t.Paused:
		return stock.ErrPaused
	case t.Opens.After(m.Now):
		return &stock.NotOpenError{RetryAfter: t.Opens.Sub(m.Now)}
	case !t.Closes.IsZero() && !t.Closes.After(m.Now):
		return stock.ErrClosed
	case !r.Deadline.IsZero() && !r.Deadline.After(m.Now):
		return stock.ErrTooLate
	}
	return nil
}

func (m *Model) mismatch() error {
	if len(m.Terms.Items) > 1 {
		return &stock.MismatchError{Field: "lines"}
	}
	return &stock.MismatchError{Field: "quantity"}
}

// Confirm answers as [stock.Store.Confirm] must.
func (m *Model) Confirm(id stock.ID, part ...stock.Line) (stock.State, error) {
	m.expire()
	r, ok := m.records[id]
	if !ok {
		return 0, stock.ErrNotFound
	}
	want := r.asked
	if len(part) > 0 {
		var err error
		if want, err = m.Terms.Basket(part); err != nil {
			return 0, err
		}
	}
	if r.state == stock.Sold {
		if !slices.Equal(r.units(), want) {
			return r.state, m.mismatch()
		}
		return r.state, nil
	}
	if r.state != stock.Held && r.state != stock.Expired {
		return r.state, stock.ErrCancelled
	}
	back := slices.Clone(r.asked)
	for i := range back {
		if back[i] -= want[i]; back[i] < 0 {
			return r.state, m.mismatch()
		}
	}
	var err error
	if r.state == stock.Held {
		r.state, r.back = stock.Sold, back
	} else {
		err = m.confirmLate(&r, want, back)
	}
	m.records[id] = r
	return r.state, err
}

// confirmLate sells what has ended, where the policy and the stock allow it;
// else never.
func (m *Model) confirmLate(r *record, want, back []int64) error {
	if m.Terms.Late == stock.LateRefused {
		r.late = true
		return stock.ErrExpired
	}
	free := m.free()
	for i := range want {
		if r.late || free[i] < want[i] && want[i] > 0 || m.overLimit(r.buyer, want) != nil {
			r.late = true
			return stock.ErrLate
		}
	}
	r.state, r.back, r.late = stock.Sold, back, true
	return nil
}

// Cancel answers as [stock.Store.Cancel] must.
func (m *Model) Cancel(id stock.ID) (stock.State, error) {
	return m.step(id, stock.Cancelled, func(s stock.State) error {
		switch s {
		case stock.Held, stock.Cancelled, stock.Expired:
			return nil
		case stock.Sold:
			return stock.ErrConfirmed
		default:
			return stock.ErrCancelled
		}
	})
}

// Return answers as [stock.Store.Return] must.
func (m *Model) Return(id stock.ID) (stock.State, error) {
	return m.step(id, stock.Returned, func(s stock.State) error {
		if s == stock.Sold || s == stock.Returned {
			return nil
		}
		return stock.ErrNotConfirmed
	})
}

// Extend answers as [stock.Store.Extend] must.
func (m *Model) Extend(id stock.ID, until time.Time) (stock.State, error) {
	m.expire()
	r, ok := m.records[id]
	if !ok {
		return 0, stock.ErrNotFound
	}
	switch r.state {
	case stock.Held:
	case stock.Sold:
		return r.state, stock.ErrConfirmed
	case stock.Expired:
		return r.state, stock.ErrExpired
	default:
		return r.state, stock.ErrCancelled
	}
	if until.After(r.expires) {
		r.expires = until
		m.records[id] = r
	}
	return r.state, nil
}

// Adjust answers as [stock.Store.Adjust] must.
func (m *Model) Adjust(a stock.Adjustment) error {
	m.expire()
	next, again, err := m.Terms.Adjust(&a)
	if err != nil || again {
		return err
	}
	was, before := m.Terms, m.free()
	m.Terms = next
	by := int64(0)
	for i, n := range m.free() {
		if n < 0 && n < before[i] {
			by -= n
		}
	}
	if by > 0 && !a.Force {
		m.Terms = was
		return &stock.OverError{By: by}
	}
	return nil
}

// Lookup answers as [stock.Store.Lookup] must.
func (m *Model) Lookup(id stock.ID) (stock.State, error) {
	m.expire()
	r, ok := m.records[id]
	if !ok {
		return 0, stock.ErrNotFound
	}
	return r.state, nil
}

func (m *Model) step(id stock.ID, to stock.State, may func(stock.State) error) (stock.State, error) {
	m.expire()
	r, ok := m.records[id]
	if !ok {
		return 0, stock.ErrNotFound
	}
	if err := may(r.state); err != nil {
		return r.state, err
	}
	if r.state != stock.Expired { // to cancel what has expired changes nothing
		r.state = to
		m.records[id] = r
	}
	return r.state, nil
}
