package outbox

import (
	"context"
	"errors"
	"time"
)

// settleRows is how many rows one call deletes at most.
const settleRows = 5000

// startSettle deletes what the broker has acknowledged: exactly those rows. A
// row in between may belong to a transaction that commits only now.
func (l *loop) startSettle() {
	n := min(len(l.acked), settleRows)
	batch := l.acked[:n:n]
	l.acked = l.acked[n:]
	l.storeBusy = true
	l.aside(func() func() {
		ctx, cancel := context.WithTimeout(l.base, l.opts.StoreTimeout)
		defer cancel()
		_, err := l.store.Settle(ctx, l.id, batch)
		return func() { l.didSettle(batch, err) }
	})
}

// didSettle forgets the rows that are gone. After a failure it is not known
// whether they are, and the same call is made again. Rows of a lane lost
// meanwhile are its new owner's to repeat.
func (l *loop) didSettle(batch []Receipt, err error) {
	if !l.storeDone("settle", err) {
		l.acked = append(batch, l.acked...)
		return
	}
	for _, receipt := range batch {
		if la := l.lanes[receipt.Lane]; la != nil && la.epoch == receipt.Epoch {
			l.forget(la, receipt.Seq)
			la.unsaved--
		}
	}
}

// move is rows of one lane on their way out of the queue.
type move struct {
	lane *lane
	key  *key // the key that is given up; nil where rows are held
	Parking
}

// park gives up on a message.
func (l *loop) park(k *key, r *row, cause error) {
	k.parking = true
	k.lane.unsaved++
	l.free(r)
	l.moves = append(l.moves, move{lane: k.lane, key: k, Parking: Parking{
		Seqs: []int64{r.Seq}, Attempts: k.attempts, Reason: cause.Error(),
	}})
	l.log.Error("message parked", "topic", r.Topic, "lane", k.lane.n, "seq", r.Seq, "attempts", k.attempts, "error", cause)
	l.tidy(k)
}

// hold moves a row that waits behind a parked one of its key.
func (l *loop) hold(la *lane, r Row, now time.Time) {
	l.free(l.remember(la, r, now))
	la.unsaved++
	for i := range l.moves {
		if m := &l.moves[i]; m.lane == la && m.Held {
			m.Seqs = append(m.Seqs, r.Seq)
			return
		}
	}
	l.moves = append(l.moves, move{lane: la, Parking: Parking{Seqs: []int64{r.Seq}, Held: true}})
}

func (l *loop) startMove() {
	m := l.moves[0]
	l.moves = l.moves[1:]
	p := m.Parking
	p.Lane, p.Epoch, p.Rewinds = m.lane.n, m.lane.epoch, m.lane.rewinds
	l.storeBusy = true
	l.aside(func() func() {
		ctx, cancel := context.WithTimeout(l.base, l.opts.StoreTimeout)
		defer cancel()
		n, err := l.store.Park(ctx, l.id, p)
		return func() { l.didMove(m, n, err) }
	})
}

// didMove lets the key of a parked message go on, with the messages behind it.
// Where the store refused because something had changed, the lane is read anew.
func (l *loop) didMove(m move, moved int, err error) {
	fenced := errors.Is(err, ErrFenced)
	if !l.storeDone("park", err) && !fenced {
		l.moves = append([]move{m}, l.moves...)
		return
	}
	if l.lanes[m.lane.n] != m.lane {
		return
	}
	for _, seq := range m.Seqs {
		l.forget(m.lane, seq)
		m.lane.unsaved--
	}
	if m.key != nil {
		m.key.parking, m.key.tries, m.key.attempts = false, 0, 0
		l.tidy(m.key)
		if moved > 0 {
			l.tel.parked(m.key.id.topic, moved)
		}
	}
	if fenced || moved < len(m.Seqs) {
		l.leaseDue = earlier(l.leaseDue, time.Now())
		l.reset(m.lane)
	}
}
