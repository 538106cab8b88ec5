package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// work brings a task to its end: finished or in the dead letters. It reports
// false when the task was given up, because of a stop or because the subscriber
// has taken the message back; the broker then delivers it again.
func (r *run) work(t *task) bool {
	w := r.watches[t.handler]
	defer func() { r.tell(w, t) }()
	for {
		t.attempt = t.failed + 1
		if !r.enter(w, t) {
			return false
		}
		ruled, err := r.attempt(w, t)
		<-r.slots
		switch {
		case t.answer == answerDone || t.answer == answerRepeat:
			return true
		case r.isStopping(): // whatever it was, a stop counts no attempt
			return false
		case t.answer == answerFinal || !ruled.excused && t.failed >= r.w.opts.MaxAttempts:
			return r.bury(t, err)
		}
		if !r.sleep(ruled.delay, t.d.msg.Context().Done()) {
			return false
		}
	}
}

// enter waits for a place among the running handlers and, in an outage, for the
// event's turn, without holding a place meanwhile.
func (r *run) enter(w *watch, t *task) bool {
	lost := t.d.msg.Context().Done()
	for granted := false; ; {
		if !r.takeSlot(t.d) {
			if granted {
				w.withdraw()
			}
			return false
		}
		if granted || w.try(t) {
			return true
		}
		<-r.slots
		var ok bool
		if granted, ok = w.wait(t, r.stopping, lost); !ok {
			return false
		}
	}
}

func (r *run) takeSlot(d *delivery) bool {
	lost := d.msg.Context().Done()
	if r.isStopping() || d.msg.Context().Err() != nil {
		return false
	}
	select {
	case r.slots <- struct{}{}:
		return true
	case <-lost:
		return false
	case <-r.stopping:
		return false
	}
}

// attempt runs the handler once. It returns when the handler has, however long
// past its time that is: the next of the key must not overlap with it.
func (r *run) attempt(w *watch, t *task) (ruling, error) {
	ctx, cancel := r.attemptContext(t)
	defer cancel()
	ctx, end := r.w.telemetry.begin(ctx, t)
	left := t.left
	overdue := time.AfterFunc(r.w.opts.Timeout+time.Second, func() {
		w.outlasted(t, left)
		r.log.WarnContext(ctx, "worker: handler ignores the end of its time; its key waits",
			"handler", t.handler.name, "topic", t.d.topic)
	})
	err := guard(func() error { return t.handler.try(ctx, t) })
	overdue.Stop()
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = &timeoutError{err}
	}
	a := answerOf(ctx, err)
	if a != answerDone && r.isStopping() { // a cancelled call accuses nobody
		a = answerNone
	}
	ruled := w.leave(t, a)
	if later := (*laterError)(nil); a == answerLater && errors.As(err, &later) {
		ruled.delay = later.delay
	}
	end(outcomeOf(a, ruled, err))
	r.report(ctx, t, ruled, err)
	return ruled, err
}

// attemptContext has the values of the message's context, and an end of its own:
// a subscription that breaks off does not cancel work that has begun.
func (r *run) attemptContext(t *task) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.d.msg.Context()), r.w.opts.Timeout)
	stop := context.AfterFunc(r.aborting, cancel)
	return ctx, func() { stop(); cancel() }
}

// bury puts the event to the dead letters, as often as it takes: as long as
// there is no place for it, it is not acknowledged and its key waits.
func (r *run) bury(t *task, err error) bool {
	letter := t.letter(err)
	for failures := 1; ; failures++ {
		ctx, cancel := r.attemptContext(t)
		putErr := guard(func() error { return r.w.putLetter(ctx, t, letter) })
		cancel()
		if putErr == nil {
			r.w.telemetry.buried(t, letter.Class)
			r.log.Error("worker: dead letter", "handler", t.handler.name, "topic", t.d.topic, "event", t.d.id,
				"class", letter.Class, "err", loggable(err), "attempts", letter.Attempts,
				"partition", t.d.origin.Partition, "offset", t.d.origin.Offset)
			return true
		}
		if failures&(failures-1) == 0 { // at the 1st, 2nd, 4th, … failure
			r.log.Error("worker: dead letter not stored; its key waits",
				"handler", t.handler.name, "topic", t.d.topic, "event", t.d.id, "failures", failures, "err", putErr)
		}
		if !r.sleep(r.w.opts.Retry(failures), t.d.msg.Context().Done()) {
			return false
		}
	}
}

func (t *task) letter(err error) Letter {
	return Letter{
		Handler:  t.handler.name,
		Topic:    t.d.topic,
		EventID:  t.d.id,
		Key:      t.d.key,
		Payload:  t.d.msg.Payload,
		Metadata: t.d.msg.Metadata,
		Class:    classOf(t.answer, err),
		Err:      errorText(err),
		Attempts: t.attempt,
		Origin:   t.d.origin,
		At:       time.Now(),
	}
}

type timeoutError struct{ err error }

func (e *timeoutError) Error() string { return "timeout: " + e.err.Error() }
func (e *timeoutError) Unwrap() error { return e.err }

// report logs a failed attempt that counts, and the begin of an outage. What does
// not count is told once per outage and not per attempt.
func (r *run) report(ctx context.Context, t *task, ruled ruling, err error) {
	log := r.log.With("handler", t.handler.name, "topic", t.d.topic, "attempt", t.attempt)
	switch {
	case ruled.began:
		r.w.telemetry.outage(t.handler, 1)
		log.WarnContext(ctx, "worker: outage; nothing counts as failed, the events wait and go on when it is over", "err", loggable(err))
		return
	case ruled.excused:
		log.DebugContext(ctx, "worker: attempt met an outage or contention", "err", loggable(err))
		return
	case t.answer != answerFailed && t.answer != answerUnavailable && t.answer != answerContention:
		return
	}
	var panicked *PanicError
	if errors.As(err, &panicked) {
		log.ErrorContext(ctx, "worker: handler panicked", "panic", loggable(err), "stack", string(panicked.Stack))
		return
	}
	log.WarnContext(ctx, "worker: attempt failed", "class", classOf(t.answer, err), "err", loggable(err))
}

// tell ends a task at its watch, and logs the end of an outage.
func (r *run) tell(w *watch, t *task) {
	lasted := w.through(t)
	if lasted == 0 {
		return
	}
	r.w.telemetry.outage(t.handler, -1)
	if !r.isStopping() {
		r.log.Info("worker: the outage is over", "handler", t.handler.name, "topic", t.d.topic, "lasted", lasted)
	}
}

// loggable is an error's text for the log. What may quote the message stays out:
// the texts of decoders and, unless the runtime made them, of panics.
func loggable(err error) string {
	var envelope *envelopeError
	if errors.As(err, &envelope) {
		return string(envelope.class)
	}
	var panicked *PanicError
	if errors.As(err, &panicked) {
		if rt, ok := panicked.Value.(runtime.Error); ok {
			return "panic: " + rt.Error()
		}
		return fmt.Sprintf("panic: %T", panicked.Value)
	}
	return errorText(err)
}
