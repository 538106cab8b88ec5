package redisstock

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// refusal is a "no" that first attempts hear from memory for a moment.
type refusal struct {
	quantity int64 // and more
	item     int
	err      error
	mark     stock.Mark // of the pool when it was refused; a later hold makes it void
	renew    time.Time  // from then on one caller is let through, to renew it
	until    time.Time  // on the monotonic clock, as renew
	freed    uint64     // pool.freed when it was asked for; another count makes it void
	scouts   [2]atomic.Bool
}

// The places where one caller passes a refusal that is about to end. Without
// these scouts a crowd would go and ask whenever it ends, until the first of
// them is back.
const (
	atTheDoor = iota // Refused
	atTheDesk        // Reserve
)

// remember keeps a refusal for the time d after its flight left: what is on its
// way grows old too. Flights may cross, so it may be void when it lands.
func (p *pool) remember(q *ask, a *answer, err error, d time.Duration, freed uint64) {
	now := time.Now()
	if d <= 0 || !now.Before(a.left.Add(d)) || freed != p.freed.Load() {
		return
	}
	quantity := q.of(a.item)
	if no := p.losers.Load(); no != nil && no.freed == freed && no.item == a.item && no.quantity <= quantity && now.Before(no.renew) {
		return // it is fresh enough, and a crowd of losers need not say it again
	}
	no := &refusal{
		quantity: quantity, item: a.item, err: err, mark: stock.Mark{Epoch: a.epoch, Seq: a.seq},
		renew: a.left.Add(d / 4), until: a.left.Add(d), freed: freed,
	}
	if before(no.mark, p.lastHold()) {
		return
	}
	p.losers.Store(no)
	p.forget(p.lastHold()) // one may have been given since
}

// gave voids refusals from before a hold that a flight has brought: there were
// units again. It does so also for those that land later.
func (p *pool) gave(m stock.Mark) {
	p.mu.Lock()
	if before(p.given, m) {
		p.given = m
	}
	p.mu.Unlock()
	p.forget(m)
}

func (p *pool) lastHold() stock.Mark {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.given
}

// forget drops the refusal if it is from before the mark.
func (p *pool) forget(m stock.Mark) {
	if no := p.losers.Load(); no != nil && before(no.mark, m) {
		p.losers.CompareAndSwap(no, nil)
	}
}

// before tells that a pool stood at a before it stood at b.
func before(a, b stock.Mark) bool {
	return a.Epoch < b.Epoch || a.Epoch == b.Epoch && a.Seq < b.Seq
}

// Refused returns the refusal that this process remembers for so many units of
// a SKU, or for the lines of a basket ([stock.ErrSoldOut] or
// [stock.ErrAllHeld]), nil where it remembers none. It asks nobody and takes
// nanoseconds. Like the memory in Reserve it lasts Options.Memory at most and
// is for first attempts only: an attempt that was made before must be asked
// about.
func (s *Store) Refused(sku string, quantity int64, lines ...stock.Line) error {
	p, ok := s.known(partOf(sku))
	if !ok {
		return nil
	}
	q := ask{quantity: quantity}
	if p.basket(&q, sku, lines) == nil { // else Reserve says what is wrong with it
		return p.remembered(&q, atTheDoor)
	}
	return nil
}

func (p *pool) remembered(q *ask, place int) error {
	no := p.losers.Load()
	if no == nil || q.of(no.item) < no.quantity || no.freed != p.freed.Load() {
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

// mayReopen does so where a step that frees units has an unknown outcome.
func (p *pool) mayReopen(err error) {
	if errors.Is(err, stock.ErrUnknown) {
		p.reopen()
	}
}
