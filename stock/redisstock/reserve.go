package redisstock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/stock"
)

// ask is what a flight has to know of a request. It holds no pointer to it, which
// would move each request to the heap.
type ask struct {
	id             stock.ID
	quantity       int64   // in all
	units          []int64 // of each item, nil for a pool of one
	deadline, born int64   // unix ms, 0 for none
}

// answer is one request's part of a reserve reply.
type answer struct {
	kind     byte // as reserve.lua has it
	state    byte
	amount   string
	item     int
	at       int64 // expiry, wait in ms, or what remains
	expires  int64
	epoch    int64
	seq      int64
	replicas int
	left     time.Time // when the flight did
}

// Reserve implements [stock.Store]. Requests of one pool that arrive while a
// trip is under way share the next one.
func (s *Store) Reserve(ctx context.Context, r stock.Request) (stock.Hold, error) {
	if err := r.Validate(); err != nil {
		return stock.Hold{}, err
	}
	p, ok := s.known(r.ID.PoolPart()) // the SKU's, as Validate has seen
	if !ok {
		var err error
		if p, err = s.meet(ctx, r.ID.PoolPart(), r.SKU); err != nil {
			return stock.Hold{}, err
		}
	}
	q := ask{id: r.ID, quantity: r.Quantity, deadline: millis(r.Deadline), born: millis(r.Born)}
	if err := p.basket(&q, r.SKU, r.Lines); err != nil {
		return stock.Hold{}, err
	}
	if r.First {
		if err := p.remembered(&q, atTheDesk); err != nil {
			return stock.Hold{}, err
		}
	}
	for {
		freed := p.freed.Load()
		a, err := p.queue.Do(ctx, q)
		if err != nil {
			return stock.Hold{}, reserveError(err)
		}
		if a.kind == 'o' && s.ledger != nil {
			return s.bygone(ctx, p, &q, r.Buyer)
		}
		if a.kind != 'm' {
			return s.settle(p, &q, a, freed)
		}
		if err := s.makeRoom(ctx, p); err != nil {
			return stock.Hold{}, err
		}
	}
}

// basket fills in what the lines come to.
func (p *pool) basket(q *ask, sku string, lines []stock.Line) error {
	if len(lines) == 0 && len(p.opened.Items) == 0 {
		return nil
	}
	if len(lines) == 0 {
		return fmt.Errorf("%w: %q has several SKUs, so the request needs Lines", stock.ErrInvalid, sku)
	}
	units, err := p.opened.Basket(lines)
	if err != nil {
		return err
	}
	q.quantity = 0
	for _, n := range units {
		q.quantity += n
	}
	if len(units) > 1 {
		q.units = units
	}
	return nil
}

// of is how many units of an item are asked for.
func (q *ask) of(item int) int64 {
	if q.units == nil {
		return q.quantity
	}
	return q.units[item]
}

// bygone answers an attempt that is older than what Redis remembers: by the
// ledger's row, where it has one.
func (s *Store) bygone(ctx context.Context, p *pool, q *ask, buyer string) (stock.Hold, error) {
	entries, err := s.ledger.Find(ctx, p.opened.SKU, []stock.ID{q.id})
	if err != nil {
		return stock.Hold{}, fmt.Errorf("ask the ledger about an old attempt: %w", err)
	}
	if len(entries) != 1 || entries[0].State == 0 || entries[0].Buyer != buyer {
		return stock.Hold{}, stock.ErrTooLate
	}
	e := entries[0]
	mark := p.current()
	hold := stock.Hold{
		ID: q.id, SKU: p.opened.SKU, Quantity: e.Quantity, Lines: e.Lines, Released: e.Released, State: e.State,
		Expires: e.Expires, Epoch: mark.Epoch, Seq: mark.Seq, Repeated: true,
	}
	if hold.Asked() != q.quantity {
		return stock.Hold{}, q.mismatch()
	}
	return hold, nil
}

func (q *ask) mismatch() error {
	if q.units != nil {
		return &stock.MismatchError{Field: "lines"}
	}
	return &stock.MismatchError{Field: "quantity"}
}

// reserveError leaves what a flight has said as it is.
func reserveError(err error) error {
	for _, ours := range []error{coalesce.ErrFull, coalesce.ErrNotSent, coalesce.ErrInFlight} {
		if errors.Is(err, ours) {
			return unknown("reserve", err)
		}
	}
	return err
}

// settle turns an answer into the caller's terms. freed is the pool's count
// from before the question.
func (s *Store) settle(p *pool, q *ask, a answer, freed uint64) (stock.Hold, error) {
	switch a.kind {
	case 'h':
		return stock.Hold{
			ID: q.id, SKU: p.opened.SKU, Quantity: q.quantity, Lines: p.opened.Lines(q.units), State: stock.Held,
			Expires: time.UnixMilli(a.expires), Epoch: a.epoch, Seq: a.seq, Replicas: a.replicas,
		}, nil
	case 'e':
		return p.hold(q.id, a.state, a.amount, a.at, stock.Hold{Epoch: a.epoch, Seq: a.seq, Repeated: true, Replicas: a.replicas})
	case 'q':
		return stock.Hold{}, q.mismatch()
	case 'u':
		return stock.Hold{}, stock.ErrUnknownSKU
	default:
		return stock.Hold{}, s.no(p, q, a, freed)
	}
}

// hold fills in what a record says.
func (p *pool) hold(id stock.ID, state byte, text string, at int64, h stock.Hold) (stock.Hold, error) {
	am, err := parseAmount(text, p.items())
	if err != nil {
		return stock.Hold{}, err
	}
	h.ID, h.SKU, h.State, h.Late, h.Expires = id, p.opened.SKU, stateOf(state), state == 't', time.UnixMilli(at)
	h.Quantity, h.Lines, h.Released = am.lines(p.opened)
	return h, nil
}

// no is the error of a refusal. What holds for others too is remembered.
func (s *Store) no(p *pool, q *ask, a answer, freed uint64) error {
	wait := time.Duration(a.at) * time.Millisecond
	switch a.kind {
	case 'o', 'd':
		return stock.ErrTooLate
	case 'p':
		return stock.ErrPaused
	case 'n':
		return &stock.NotOpenError{RetryAfter: wait}
	case 'c':
		return stock.ErrClosed
	case 'l':
		return &stock.LimitError{Remaining: a.at}
	case 'L':
		return p.about(a.item, &stock.LimitError{Remaining: a.at})
	case 't':
		return stock.ErrTooManyAttempts
	case 'j':
		return stock.ErrJournalFull
	case 'a', 'A':
		err := p.about(a.item, &stock.AllHeldError{RetryAfter: wait})
		p.remember(q, &a, err, min(s.opts.Memory, wait), freed)
		return err
	case 's', 'S':
		err := p.about(a.item, stock.ErrSoldOut)
		p.remember(q, &a, err, s.opts.Memory, freed)
		return err
	default:
		return fmt.Errorf("redisstock: unexpected answer %q", a.kind)
	}
}

// about names the item that a refusal is about, where there are several.
func (p *pool) about(item int, err error) error {
	if len(p.opened.Items) == 0 {
		return err
	}
	return &stock.ItemError{SKU: p.opened.Items[item].SKU, Err: err}
}

// stateOf reads a record's letter. A hold without an end is a hold.
func stateOf(letter byte) stock.State {
	switch letter {
	case 'h', 'k':
		return stock.Held
	case 's', 't':
		return stock.Sold
	case 'c':
		return stock.Cancelled
	case 'x', 'l':
		return stock.Expired
	case 'r':
		return stock.Returned
	default:
		return 0
	}
}
