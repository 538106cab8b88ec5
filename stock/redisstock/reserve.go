package redisstock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/stock"
)

// answer is one request's part of a reserve reply.
type answer struct {
	kind     byte // as reserve.lua has it
	state    byte
	quantity int64
	at       int64 // expiry or wait in ms
	expires  int64
	epoch    int64
	seq      int64
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
	if r.First {
		if err := p.remembered(r.Quantity, atTheDesk); err != nil {
			return stock.Hold{}, err
		}
	}
	freed := p.freed.Load()
	for {
		a, err := p.queue.Do(ctx, &r)
		if err != nil {
			return stock.Hold{}, s.reserveError(err)
		}
		if a.kind != 'm' {
			return s.settle(p, &r, a, freed)
		}
		if err := s.makeRoom(ctx, p); err != nil {
			return stock.Hold{}, err
		}
	}
}

func (s *Store) reserveError(err error) error {
	if errors.Is(err, stock.ErrFenced) || errors.Is(err, stock.ErrUnknownSKU) || errors.Is(err, stock.ErrUnknown) {
		return err
	}
	return unknown("reserve", err)
}

// settle turns an answer into the caller's terms. freed is the pool's count
// from before the question.
func (s *Store) settle(p *pool, r *stock.Request, a answer, freed uint64) (stock.Hold, error) {
	hold := stock.Hold{ID: r.ID, SKU: r.SKU, Quantity: r.Quantity, Epoch: a.epoch, Seq: a.seq}
	wait := time.Duration(a.at) * time.Millisecond
	switch a.kind {
	case 'h':
		hold.State, hold.Expires = stock.Held, time.UnixMilli(a.expires)
		return hold, nil
	case 'e':
		hold.State, hold.Expires, hold.Repeated = stateOf(a.state), time.UnixMilli(a.at), true
		return hold, nil
	case 'q':
		return stock.Hold{}, &stock.MismatchError{Field: "quantity"}
	case 'o', 'd':
		return stock.Hold{}, stock.ErrTooLate
	case 'n':
		return stock.Hold{}, &stock.NotOpenError{RetryAfter: wait}
	case 'c':
		return stock.Hold{}, stock.ErrClosed
	case 'l':
		return stock.Hold{}, &stock.LimitError{Remaining: a.quantity}
	case 't':
		return stock.Hold{}, stock.ErrTooManyAttempts
	case 'j':
		return stock.Hold{}, stock.ErrJournalFull
	case 'a':
		err := &stock.AllHeldError{RetryAfter: wait}
		p.remember(r.Quantity, err, min(s.opts.Memory, wait), freed)
		return stock.Hold{}, err
	case 's':
		p.remember(r.Quantity, stock.ErrSoldOut, s.opts.Memory, freed)
		return stock.Hold{}, stock.ErrSoldOut
	default:
		return stock.Hold{}, fmt.Errorf("redisstock: unexpected answer %q", a.kind)
	}
}

// stateOf reads a record's letter. A hold without an end is a hold.
func stateOf(letter byte) stock.State {
	switch letter {
	case 'h', 'k':
		return stock.Held
	case 's':
		return stock.Sold
	case 'c':
		return stock.Cancelled
	case 'x':
		return stock.Expired
	case 'r':
		return stock.Returned
	default:
		return 0
	}
}

// refusal is a "no" that first attempts hear from memory for a moment.
type refusal struct {
	quantity int64 // and more
	err      error
	renew    time.Time // from then on one caller is let through, to renew it
	until    time.Time // on the monotonic clock, as renew
	freed    uint64    // pool.freed when it was asked for; another count makes it void
	scouts   [2]atomic.Bool
}

// The places where one caller passes a refusal that is about to end. Without
// these scouts a crowd would go and ask whenever it ends, until the first of
// them is back.
const (
	atTheDoor = iota // Refused
	atTheDesk        // Reserve
)

func (p *pool) remember(quantity int64, err error, d time.Duration, freed uint64) {
	if d > 0 {
		now := time.Now()
		p.losers.Store(&refusal{quantity: quantity, err: err, renew: now.Add(d / 4), until: now.Add(d), freed: freed})
	}
}

// Refused returns the refusal that this process remembers for so many units of
// a SKU ([stock.ErrSoldOut] or [stock.ErrAllHeld]), nil where it remembers
// none. It asks nobody and takes nanoseconds. Like the memory in Reserve it
// lasts Options.Memory at most and is for first attempts only: an attempt that
// was made before must be asked about.
func (s *Store) Refused(sku string, quantity int64) error {
	if p, ok := s.known(partOf(sku)); ok {
		return p.remembered(quantity, atTheDoor)
	}
	return nil
}

func (p *pool) remembered(quantity int64, place int) error {
	no := p.losers.Load()
	if no == nil || quantity < no.quantity || no.freed != p.freed.Load() {
		return nil
	}
	now := time.Now()
	if !now.Before(no.until) || now.After(no.renew) && no.scouts[place].CompareAndSwap(false, true) {
		return nil
	}
	return no.err
}

// reopen voids remembered refusals, also those still on their way: this
// process freed a unit.
func (p *pool) reopen() { p.freed.Add(1) }

// manifest is the arguments of one flight, kept between flights.
type manifest struct{ ids, details []byte }

var manifests = sync.Pool{New: func() any { return new(manifest) }}

// flight asks Redis for a batch at once.
func (s *Store) flight(ctx context.Context, p *pool, batch []*coalesce.Call[*stock.Request, answer]) {
	asking := "0"
	if p.asking.Load() {
		asking = "1"
	}
	m := manifests.Get().(*manifest)
	defer manifests.Put(m)
	all, deadline, born := m.pack(batch)
	r, err := s.call(ctx, p, false, s.scripts.reserve,
		s.opts.Retention.Milliseconds(), s.opts.MaxRecords, asking, len(batch),
		m.ids, all, deadline, born, m.details)
	if err == nil && len(r.rest) < 2 {
		err = errors.New("redisstock: short reply")
	}
	if err != nil {
		for _, c := range batch {
			c.Err = err
		}
		return
	}
	unpack(batch, r)
}

// pack writes the batch as reserve.lua reads it, and returns what holds for
// all of it: the common quantity, the earliest deadline and birth.
func (m *manifest) pack(batch []*coalesce.Call[*stock.Request, answer]) (all, deadline, born int64) {
	m.ids, m.details = m.ids[:0], m.details[:0]
	all = batch[0].Q.Quantity
	for _, c := range batch {
		q := c.Q
		buyer, claim := q.ID.BuyerPart(), q.ID.ClaimPart()
		m.ids = append(append(m.ids, buyer[:]...), claim[:]...)
		d, b := millis(q.Deadline), millis(q.Born)
		m.details = strconv.AppendInt(m.details, q.Quantity, 10)
		m.details = strconv.AppendInt(append(m.details, ','), d, 10)
		m.details = strconv.AppendInt(append(m.details, ','), b, 10)
		m.details = append(m.details, ';')
		if q.Quantity != all {
			all = 0
		}
		deadline, born = earlier(deadline, d), earlier(born, b)
	}
	return all, deadline, born
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixMilli(), 1)
}

func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// unpack gives each call its answer.
func unpack(batch []*coalesce.Call[*stock.Request, answer], r reply) {
	expires, text := toInt(r.rest[0]), toString(r.rest[1])
	for _, c := range batch {
		if text == "" {
			c.Err = errors.New("redisstock: short reply")
			continue
		}
		a := answer{kind: text[0], expires: expires, epoch: r.epoch, seq: r.seq}
		text = text[1:]
		switch a.kind {
		case 'e', 'n', 'l', 'a':
			body, rest, _ := strings.Cut(text, ";")
			text = rest
			a.detail(body)
		}
		c.R = a
	}
}

// detail reads what stands between an answer's letter and its semicolon.
func (a *answer) detail(body string) {
	if a.kind == 'e' && body != "" {
		a.state = body[0]
		quantity, at, _ := strings.Cut(body[1:], ",")
		a.quantity, a.at = toInt(quantity), toInt(at)
		return
	}
	a.at = toInt(body)
	a.quantity = a.at
}
