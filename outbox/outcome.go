package outbox

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// outageAfter refusals on the broker's account in a row, the relay stops
	// sending and probes.
	outageAfter  = 3
	longestProbe = 2 * time.Second

	// suspectKeys different keys refused without a verdict, and nothing accepted
	// between: that looks like the broker, not like the messages.
	suspectKeys = 3
)

// resolve takes the answer for one message.
func (l *loop) resolve(s sending, err error, now time.Time) {
	k, la := s.key, s.key.lane
	if k.closed { // the lane was lost while the call was open
		l.zombies[la.n]--
		return
	}
	la.open--
	k.sent--
	k.queue = slices.DeleteFunc(k.queue, func(r *row) bool { return r == s.row })
	if err == nil {
		l.acknowledged(k, s.row, now)
		return
	}
	if errors.Is(err, ErrSkipped) && k.waits() {
		l.leave(k, s.row)
		return
	}
	l.refused(k, s.row, err, now)
}

// leave gives a row back to the store, to be read again.
func (l *loop) leave(k *key, r *row) {
	l.miss(k, r.Seq)
	l.forget(k.lane, r.Seq)
}

func (l *loop) acknowledged(k *key, r *row, now time.Time) {
	if l.outage >= outageAfter {
		l.log.Info("broker accepts messages again")
	}
	l.outage = 0
	l.accepted++
	clear(l.suspects)
	if k.failedSeq == r.Seq {
		k.tries, k.attempts = 0, 0
	}
	l.tel.published(r.Topic, r.Age+now.Sub(r.readAt))
	l.free(r)
	k.lane.unsaved++
	l.acked = append(l.acked, Receipt{Lane: k.lane.n, Epoch: k.lane.epoch, Seq: r.Seq, ID: r.ID})
}

// refused makes a key wait behind its message, or parks the message. In a
// batch only the first refusal of a key counts.
func (l *loop) refused(k *key, r *row, err error, now time.Time) {
	if k.waits() {
		l.leave(k, r)
		return
	}
	if k.failedSeq != r.Seq {
		k.failedSeq, k.tries, k.attempts = r.Seq, 0, 0
	}
	whose := faultOf(err)
	k.tries++
	if l.counts(k, whose) {
		k.attempts++
	}
	k.accepted = l.accepted
	l.tel.refused(r.Topic, whose)
	l.log.Debug("message refused", "topic", r.Topic, "lane", k.lane.n, "seq", r.Seq, "attempts", k.attempts, "error", err)
	if k.attempts >= l.opts.MaxAttempts {
		l.park(k, r, err)
		return
	}
	delay := max(0, l.opts.Backoff(k.tries))
	if whose == faultBroker {
		delay = min(delay, longestProbe) // it comes back for all at once
		l.brokerRefused(err, now)
	}
	l.wait(k, now.Add(delay))
	l.leave(k, r)
}

// counts decides whether a refusal counts as an attempt towards parking. What a
// publisher marked is clear. Otherwise it does not count while several keys
// fail and nothing has been accepted since: an outage must park nothing, and
// what is parked by mistake keeps its whole key waiting.
func (l *loop) counts(k *key, whose fault) bool {
	switch whose {
	case faultMessage:
		return true
	case faultBroker:
		return false
	}
	if len(l.suspects) < suspectKeys {
		l.suspects[k] = true
	}
	return len(l.suspects) < suspectKeys || l.accepted > k.accepted && k.tries > 1
}

// brokerRefused counts towards an outage, in which one message at a time is
// tried, after pauses that grow to two seconds.
func (l *loop) brokerRefused(err error, now time.Time) {
	l.outage++
	if l.outage < outageAfter {
		return
	}
	if l.outage == outageAfter {
		l.log.Warn("broker unavailable; nothing is lost or parked, sending goes on when it is back", "error", err)
	}
	pause := min(50*time.Millisecond<<min(l.outage-outageAfter, 10), longestProbe)
	l.pausedTo = now.Add(pause/2 + rand.N(pause/2+1))
}
