package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

var (
	errTopic   = errors.New("outbox: topic is not on the relay's list")
	errFormat  = errors.New("outbox: stored record has an unknown format")
	errAnswers = errors.New("outbox: publisher returned another number of answers than it got messages")
)

// sending is one message with the publisher.
type sending struct {
	key *key
	row *row
	msg *message.Message
	end func(error) // of its span
}

// dispatch hands messages to the publisher while it may: enough is left of the
// lease, calls are free, and the broker is not known to be away.
func (l *loop) dispatch(now time.Time) {
	for len(l.ready) > 0 && l.open < l.opts.Concurrency && l.validUntil.Sub(now) >= l.opts.PublishTimeout {
		size := 1
		if l.batches != nil {
			size = l.opts.BatchSize
		}
		if l.outage >= outageAfter { // one message shows whether it is back
			if l.open > 0 || now.Before(l.pausedTo) {
				return
			}
			size = 1
		}
		if batch := l.pick(size); len(batch) > 0 {
			l.publish(batch, now)
		}
	}
}

// pick takes the next messages in line: one per key where the publisher takes
// one at a time, a run of each key's where it stops a key at its first refusal.
func (l *loop) pick(size int) []sending {
	var batch []sending
	for len(l.ready) > 0 && len(batch) < size {
		k := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		k.listed = false
		if k.closed || k.lane.leaving || len(k.queue) == 0 {
			continue
		}
		run := 1
		if l.batches != nil && k.tries == 0 {
			run = min(len(k.queue), size-len(batch))
		}
		for _, r := range k.queue[:run] {
			if err := l.admit(r); err != nil {
				if k.sent == 0 {
					l.refuseHere(k, r, err)
				}
				break
			}
			k.sent++
			k.lane.open++
			batch = append(batch, sending{key: k, row: r})
		}
	}
	return batch
}

// admit checks what must never reach the broker.
func (l *loop) admit(r *row) error {
	if r.Format != StoredFormat {
		return fmt.Errorf("%w %d", errFormat, r.Format)
	}
	if !l.topics[r.Topic] {
		return errTopic
	}
	return nil
}

// refuseHere treats a message as refused without having sent it.
func (l *loop) refuseHere(k *key, r *row, err error) {
	k.sent++
	k.lane.open++
	l.resolve(sending{key: k, row: r}, Refused(err), time.Now())
	l.settleKey(k)
}

// publish makes one call. The messages' contexts end with PublishTimeout, which
// dispatch has seen to lie within the lease.
func (l *loop) publish(batch []sending, now time.Time) {
	l.open++
	deadline := now.Add(l.opts.PublishTimeout)
	ctx, cancel := context.WithDeadline(l.pubCtx, deadline)
	l.aside(func() func() {
		defer cancel()
		for i := range batch {
			s := &batch[i]
			msgCtx, end := l.tel.span(ctx, &s.row.Message)
			s.msg, s.end = toWire(msgCtx, &s.row.Message), end
		}
		errs := l.call(ctx, deadline, batch)
		for i := range batch {
			batch[i].end(errs[i])
		}
		return func() { l.published(batch, errs) }
	})
}

// call is the publisher's. A panic there is a refusal like another: the relay
// goes on, and the message is parked in the end. A process that froze since
// dispatch looked at the lease sends nothing.
func (l *loop) call(ctx context.Context, deadline time.Time, batch []sending) (errs []error) {
	errs = make([]error, len(batch))
	if !time.Now().Before(deadline) {
		for i := range errs {
			errs[i] = context.DeadlineExceeded
		}
		return errs
	}
	defer func() {
		if p := recover(); p != nil {
			for i := range errs {
				errs[i] = Refused(fmt.Errorf("outbox: publisher panicked: %v", p))
			}
		}
	}()
	if l.batches == nil {
		errs[0] = l.publisher.Publish(batch[0].row.Topic, batch[0].msg)
		return errs
	}
	msgs := make([]*message.Message, len(batch))
	for i := range batch {
		msgs[i] = batch[i].msg
	}
	if answers := l.batches.PublishBatch(ctx, msgs); len(answers) == len(errs) {
		return answers
	}
	for i := range errs {
		errs[i] = errAnswers
	}
	return errs
}

// published takes in the answers of one call.
func (l *loop) published(batch []sending, errs []error) {
	l.open--
	now := time.Now()
	for i, s := range batch {
		l.resolve(s, errs[i], now)
	}
	for _, s := range batch {
		l.settleKey(s.key)
	}
}

// settleKey puts a key back in line once all that was sent of it is resolved.
func (l *loop) settleKey(k *key) {
	if k.closed || k.sent > 0 {
		return
	}
	if k.waits() {
		l.flush(k)
	}
	l.list(k)
	l.tidy(k)
}
