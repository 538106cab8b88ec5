package worker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Handle registers fn for the events of a topic. The name identifies the
// handler in the inbox, so it must stay the same over releases.
//
// The inbox is asked first and marked after fn returned nil. Between fn's effect
// and the mark a crash may come, and two processes may be given one event at
// once, so fn's effect must be idempotent by [Event.ID]. [HandleTx] has no such
// window.
//
// The context ends at [Options.Timeout] and when a stop has outlasted
// [Options.Grace]; it carries the values of the message's context. Handle is
// called before [Worker.Run]. Several handlers may share a topic: each runs
// once per event, with retries and order of its own.
func Handle[T any](w *Worker, name, topic string, fn func(ctx context.Context, event Event[T]) error) error {
	if fn == nil {
		return fmt.Errorf("worker: handler %q: function is nil", name)
	}
	return w.register(&handler{name: name, topic: topic, try: func(ctx context.Context, t *task) error {
		if t.effectDone { // only the mark was missing
			return w.mark(ctx, t)
		}
		event, err := decode[T](w, t)
		if err != nil {
			return err
		}
		if err := w.checkInbox(ctx, t); err != nil {
			return err
		}
		if err := guard(func() error { return fn(ctx, event) }); err != nil {
			return err
		}
		t.effectDone = true
		return w.mark(ctx, t)
	}})
}

// HandleTx registers fn for the events of a topic, with the inbox's mark in the
// transaction that fn is given: fn's statements take effect together with the
// mark or not at all, under repeats, crashes and several workers at once. fn
// neither commits nor rolls back. The worker's inbox must be a [TxInbox].
//
// All else is as for [Handle].
func HandleTx[T any](w *Worker, name, topic string, fn func(ctx context.Context, tx *sql.Tx, event Event[T]) error) error {
	if fn == nil {
		return fmt.Errorf("worker: handler %q: function is nil", name)
	}
	inbox, ok := w.inbox.(TxInbox)
	if !ok {
		return fmt.Errorf("worker: handler %q: HandleTx needs an inbox with InTx, such as sqlinbox; the worker's is %T", name, w.inbox)
	}
	return w.register(&handler{name: name, topic: topic, try: func(ctx context.Context, t *task) error {
		event, err := decode[T](w, t)
		if err != nil {
			return err
		}
		if t.d.id == "" {
			return &envelopeError{ClassNoID, errNoID}
		}
		entered := false
		ran, err := inbox.InTx(ctx, name, t.d.id, func(tx *sql.Tx) error {
			if err := w.removeInTx(ctx, tx, t); err != nil {
				return err // as when the inbox fails
			}
			entered = true
			return guard(func() error { return fn(ctx, tx, event) })
		})
		switch {
		case errors.Is(err, errRepeat) && !entered: // its letter is not in our hand any more
			return errRepeat
		case err != nil && !entered: // the handler never ran: no attempt
			return &inboxError{fmt.Errorf("inbox: %w", err)}
		case err != nil:
			return err
		case !ran:
			return errRepeat
		}
		if t.requeued != nil {
			t.requeued.removed = w.sharedLetters != nil
		}
		return nil
	}})
}

// handler is a registered function without its type. try decodes, consults the
// inbox and runs it once.
type handler struct {
	name, topic string
	try         func(ctx context.Context, t *task) error
}

// task is one event for one handler.
type task struct {
	d       *delivery
	handler *handler
	attempt int // the one now running, from 1

	trouble

	// effectDone is set once a handler without a transaction returned nil, so
	// that a failed mark is repeated alone.
	effectDone bool

	requeued  *requeuedTask // set where a dead letter is run again
	notBuried bool          // the dead letters were asked
}

func decode[T any](w *Worker, t *task) (Event[T], error) {
	var payload T
	err := guard(func() error { return w.opts.Decode(t.d.msg.Payload, &payload) })
	if err != nil {
		return Event[T]{}, &envelopeError{ClassUndecodable, fmt.Errorf("decode payload: %w", err)}
	}
	return newEvent(t.d, t.attempt, payload), nil
}

func (w *Worker) checkInbox(ctx context.Context, t *task) error {
	if w.inbox == nil {
		return nil
	}
	if t.d.id == "" {
		return &envelopeError{ClassNoID, errNoID}
	}
	seen, err := w.inbox.Seen(ctx, t.handler.name, t.d.id)
	if err != nil {
		return &inboxError{fmt.Errorf("inbox: %w", err)}
	}
	if seen {
		return errRepeat
	}
	return nil
}

// mark runs on a context of its own: what has taken effect is recorded even
// where the handler used up its time or a stop cancelled it.
func (w *Worker) mark(ctx context.Context, t *task) error {
	if w.inbox == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	if done, err := w.markAndRemove(ctx, t); done || err != nil {
		if err != nil {
			return &inboxError{fmt.Errorf("inbox mark: %w", err)}
		}
		return nil
	}
	if err := w.inbox.Mark(ctx, t.handler.name, t.d.id); err != nil {
		return &inboxError{fmt.Errorf("inbox mark: %w", err)}
	}
	return nil
}

var errNoID = errors.New("the message has no UUID, so a repeat of it cannot be told")
