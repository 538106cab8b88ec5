package worker

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

const (
	letterPage    = 32               // requeued letters asked for at once
	lettersInHand = 128              // of them in the lanes of one run, waiting ones included
	letterTime    = 10 * time.Second // bounds one call of the store
	releaseTime   = 2 * time.Second  // the same, while a stop waits
	leaseMargin   = 30 * time.Second // beyond Options.Timeout: for the mark and the removal
)

// requeues is a run's part in running dead letters again: those that it has in
// its lanes. A letter is taken when its turn in its lane has come, so it may be
// listed again while it waits there.
type requeues struct {
	handlers map[string]*handler
	names    []string

	mu     sync.Mutex
	inHand map[int64]string // the letter's handler
	of     map[string]int   // how many of them a handler has
}

func newRequeues(topics map[string][]*handler) *requeues {
	q := &requeues{handlers: map[string]*handler{}, inHand: map[int64]string{}, of: map[string]int{}}
	for _, handlers := range topics {
		for _, h := range handlers {
			q.handlers[h.name] = h
			q.names = append(q.names, h.name)
		}
	}
	slices.Sort(q.names)
	return q
}

// enter notes a letter; false when it is in hand already. full: no more of this
// handler now. Each has a share of its own, since one in an outage lets go of none.
func (q *requeues) enter(seq int64, handler string) (entered, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.inHand[seq]; ok {
		return false, false
	}
	if q.of[handler] >= max(1, lettersInHand/len(q.names)) {
		return false, true
	}
	q.inHand[seq] = handler
	q.of[handler]++
	return true, false
}

func (q *requeues) leave(seq int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.of[q.inHand[seq]]--
	delete(q.inHand, seq)
}

// runLetters takes up requeued letters until the stop: at once where this
// process requeued them, else at the next poll.
func (r *run) runLetters() {
	for {
		changed := r.w.letters.Changed()
		if err := r.admitLetters(); err != nil && !r.isStopping() {
			r.log.Warn("worker: requeued dead letters not read, trying again later", "err", err)
		}
		every := r.w.opts.LetterPoll
		timer := time.NewTimer(every/2 + mathrand.N(every/2+1)) // processes don't go in step
		select {
		case <-changed:
		case <-timer.C:
		case <-r.stopping:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// admitLetters puts what is requeued into the lanes of its keys.
func (r *run) admitLetters() error {
	names := slices.Clone(r.requeues.names) // those that have room
	for after := int64(0); len(names) > 0; {
		ctx, cancel := context.WithTimeout(r.aborting, letterTime)
		page, err := r.w.letters.Requeued(ctx, names, after, letterPage)
		cancel()
		if err != nil {
			return err
		}
		for i := range page {
			after = page[i].Seq
			entered, full := r.requeues.enter(page[i].Seq, page[i].Handler)
			if full {
				names = slices.DeleteFunc(names, func(n string) bool { return n == page[i].Handler })
			}
			if entered && !r.admitLetter(&page[i]) {
				return nil
			}
		}
		if len(page) < letterPage {
			return nil
		}
	}
	return nil
}

// admitLetter is admit for a letter; false when the stop came first.
func (r *run) admitLetter(l *StoredLetter) bool {
	h := r.requeues.handlers[l.Handler]
	if h == nil { // not asked for
		r.requeues.leave(l.Seq)
		return true
	}
	d := newDelivery(l.Topic, letterMessage(l))
	d.origin = l.Origin
	d.size += l.Size // the payload comes when it is taken
	if !r.gate.enter(d.size, r.stopping, nil) {
		r.requeues.leave(l.Seq)
		return false
	}
	d.pending.Store(1)
	r.w.telemetry.inFlight.Add(context.Background(), 1)
	if !r.lanes.add([]*task{{d: d, handler: h, requeued: &requeuedTask{seq: l.Seq}}}) {
		r.release(d)
		r.requeues.leave(l.Seq)
		return false
	}
	return true
}

// letterMessage is the event as it was received.
func letterMessage(l *StoredLetter) *message.Message {
	msg := message.NewMessage(l.EventID, l.Payload)
	for k, v := range l.Metadata {
		msg.Metadata.Set(k, v)
	}
	return msg
}

// requeuedTask is the letter that a task runs again.
type requeuedTask struct {
	seq     int64
	taken   bool // or the store was asked, and may have given it
	removed bool // in the transaction of the inbox's mark
}

// newTaker names this worker's hand in the store.
func newTaker() string { return rand.Text() }

// withLetters is what a dead letter store adds to an attempt. An event of the
// broker that has a letter is not run: it lies there, is run from there, or was
// dropped. A requeued letter is taken before and removed after.
func (w *Worker) withLetters(try func(context.Context, *task) error) func(context.Context, *task) error {
	return func(ctx context.Context, t *task) error {
		if t.requeued == nil {
			if err := w.checkBuried(ctx, t); err != nil {
				return err
			}
			return try(ctx, t)
		}
		if err := w.takeLetter(ctx, t); err != nil {
			return err
		}
		err := try(ctx, t)
		if (err == nil || errors.Is(err, errRepeat)) && !t.requeued.removed {
			return w.removeLetter(ctx, t)
		}
		return err
	}
}

// checkBuried asks once per delivery.
func (w *Worker) checkBuried(ctx context.Context, t *task) error {
	if t.notBuried || t.d.id == "" {
		return nil
	}
	buried, err := w.letters.Buried(ctx, t.handler.name, t.d.id)
	switch {
	case err != nil:
		return &inboxError{fmt.Errorf("dead letters: %w", err)}
	case buried:
		return errRepeat
	}
	t.notBuried = true
	return nil
}

func (w *Worker) takeLetter(ctx context.Context, t *task) error {
	t.requeued.taken = true
	l, ok, err := w.letters.Take(ctx, t.requeued.seq, w.taker, w.opts.Timeout+leaseMargin)
	switch {
	case err != nil:
		return &inboxError{fmt.Errorf("take dead letter: %w", err)}
	case !ok: // another worker has it, or it is done or dropped
		return errRepeat
	}
	t.d.msg.Payload = l.Payload
	return nil
}

// removeLetter ends the letter where that was not part of the mark's
// transaction. Like the mark it outlasts the attempt's time.
func (w *Worker) removeLetter(ctx context.Context, t *task) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	if _, err := w.letters.Remove(ctx, t.requeued.seq, w.taker); err != nil {
		return &inboxError{fmt.Errorf("remove dead letter: %w", err)}
	}
	return nil
}

// removeInTx removes a requeued letter in the transaction of the inbox's mark,
// where the two share a database. A letter that is no longer in our hand is
// another worker's: errRepeat rolls back.
func (w *Worker) removeInTx(ctx context.Context, tx *sql.Tx, t *task) error {
	if t.requeued == nil || w.sharedLetters == nil {
		return nil
	}
	ours, err := w.sharedLetters.RemoveTx(ctx, tx, t.requeued.seq, w.taker)
	if err != nil {
		return fmt.Errorf("remove dead letter: %w", err)
	}
	if !ours {
		return errRepeat
	}
	return nil
}

// markAndRemove is the mark of a handler without a transaction, in one
// transaction with the end of its letter where that can be. The effect is done,
// so the mark stands in any case.
func (w *Worker) markAndRemove(ctx context.Context, t *task) (done bool, err error) {
	inbox, ok := w.inbox.(TxInbox)
	if t.requeued == nil || w.sharedLetters == nil || !ok {
		return false, nil
	}
	ran, err := inbox.InTx(ctx, t.handler.name, t.d.id, func(tx *sql.Tx) error {
		_, err := w.sharedLetters.RemoveTx(ctx, tx, t.requeued.seq, w.taker)
		return err
	})
	t.requeued.removed = err == nil && ran
	return err == nil, err
}

// putLetter stores the letter of a task that is given up.
func (w *Worker) putLetter(ctx context.Context, t *task, letter Letter) error {
	if t.requeued != nil {
		return w.letters.PutBack(ctx, t.requeued.seq, w.taker, letter)
	}
	return w.dead.Put(ctx, letter)
}

// letGo ends a task's hold on its letter. What was given up stays requeued. Of
// what only waited in its lane there is nothing to let go: a stop asks the store
// once per lane at most.
func (r *run) letGo(t *task, done bool) {
	if t.requeued == nil {
		return
	}
	defer r.requeues.leave(t.requeued.seq)
	if done || !t.requeued.taken {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	if err := r.w.letters.Release(ctx, t.requeued.seq, r.w.taker); err != nil {
		r.log.Warn("worker: requeued dead letter not released; another worker takes it when its lease is over", "err", err)
	}
}
