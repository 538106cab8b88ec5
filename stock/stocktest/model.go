// Package stocktest tests a [stock.Store]: a small reference model ([Model]), a
// suite of sentences that every store must fulfil ([Run]), random sequences of
// operations compared with the model ([Random]), and a check that what
// concurrent callers heard, also over lost replies, can be explained by single
// steps of the model ([History]).
package stocktest

import (
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Model is what a pool without a ledger does, said as plainly as possible: one
// caller at a time, no memory limits, no failures. Now moves only when told to.
type Model struct {
	Pool    stock.Pool
	Now     time.Time
	records map[stock.ID]record
}

type record struct {
	buyer    string
	quantity int64
	state    stock.State
	expires  time.Time
}

// NewModel opens a pool; p must be normalized.
func NewModel(p stock.Pool, now time.Time) *Model {
	return &Model{Pool: p, Now: now, records: make(map[stock.ID]record)}
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

// Levels counts the pool. Unlike a store it sees at once what has expired.
func (m *Model) Levels() stock.Levels {
	m.expire()
	l := stock.Levels{SKU: m.Pool.SKU, Total: m.Pool.Total, Free: m.Pool.Total}
	for _, r := range m.records {
		switch r.state {
		case stock.Held:
			l.Held += r.quantity
			l.Free -= r.quantity
		case stock.Sold:
			l.Sold += r.quantity
			l.Free -= r.quantity
		}
	}
	return l
}

func (m *Model) taken(buyer string) (units int64) {
	for _, r := range m.records {
		if r.buyer == buyer && (r.state == stock.Held || r.state == stock.Sold) {
			units += r.quantity
		}
	}
	return units
}

// nextExpiry is the time until the earliest live hold ends.
func (m *Model) nextExpiry() time.Duration {
	best := time.Duration(-1)
	for _, r := range m.records {
		if d := r.expires.Sub(m.Now); r.state == stock.Held && (best < 0 || d < best) {
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
	m.expire()
	if old, ok := m.records[r.ID]; ok {
		if old.quantity != r.Quantity {
			return 0, &stock.MismatchError{Field: "quantity"}
		}
		return old.state, nil
	}
	switch p := m.Pool; {
	case p.Opens.After(m.Now):
		return 0, &stock.NotOpenError{RetryAfter: p.Opens.Sub(m.Now)}
	case !p.Closes.IsZero() && !p.Closes.After(m.Now):
		return 0, stock.ErrClosed
	case !r.Deadline.IsZero() && !r.Deadline.After(m.Now):
		return 0, stock.ErrTooLate
	}
	if taken := m.taken(r.Buyer); m.Pool.Limit > 0 && taken+r.Quantity > m.Pool.Limit {
		return 0, &stock.LimitError{Remaining: m.Pool.Limit - taken}
	}
	if l := m.Levels(); l.Free < r.Quantity {
		if l.Held == 0 || l.Free+l.Held < r.Quantity {
			return 0, stock.ErrSoldOut
		}
		return 0, &stock.AllHeldError{RetryAfter: m.nextExpiry()}
	}
	m.records[r.ID] = record{buyer: r.Buyer, quantity: r.Quantity, state: stock.Held, expires: m.Now.Add(m.Pool.Hold)}
	return stock.Held, nil
}

// Confirm answers as [stock.Store.Confirm] must.
func (m *Model) Confirm(id stock.ID) (stock.State, error) {
	return m.step(id, stock.Sold, func(s stock.State) error {
		switch s {
		case stock.Held, stock.Sold:
			return nil
		case stock.Expired:
			return stock.ErrExpired
		default:
			return stock.ErrCancelled
		}
	})
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
