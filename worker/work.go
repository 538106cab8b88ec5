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
	opts := &r.w.opts
	for failed, outages := 0, 0; ; {
		t.attempt = failed + 1
		if !r.enter(t.d) {
			return false
		}
		err := r.attempt(t)
		<-r.slots

		var delay time.Duration
		var later *laterError
		var outage *inboxError
		switch {
		case err == nil || errors.Is(err, errRepeat):
			return true
		case r.isStopping(): // whatever it was, a stop counts no attempt
			return false
		case errors.As(err, &outage):
			outages++
			delay = opts.Retry(outages)
		case errors.As(err, &later):
			delay = later.delay
		case isFinal(err) || failed+1 >= opts.MaxAttempts:
			return r.bury(t, err)
		default:
			failed++
			delay = opts.Retry(failed)
		}
		if !r.sleep(delay, t.d.msg.Context().Done()) {
			return false
		}
	}
}

// enter waits for a place among the running handlers.
func (r *run) enter(d *delivery) bool {
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
func (r *run) attempt(t *task) error {
	ctx, cancel := r.attemptContext(t)
	defer cancel()
	ctx, end := r.w.telemetry.begin(ctx, t)
	overdue := time.AfterFunc(r.w.opts.Timeout+time.Second, func() {
		r.log.WarnContext(ctx, "worker: handler ignores the end of its time; its key waits",
			"handler", t.handler.name, "topic", t.d.topic)
	})
	err := guard(func() error { return t.handler.try(ctx, t) })
	overdue.Stop()
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = &timeoutError{err}
	}
	end(err)
	r.report(ctx, t, err)
	return err
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
			r.log.Warn("worker: dead letter", "handler", t.handler.name, "topic", t.d.topic, "class", letter.Class,
				"attempts", letter.Attempts, "partition", t.d.origin.Partition, "offset", t.d.origin.Offset)
			return true
		}
		r.log.Error("worker: dead letter not stored; its key waits",
			"handler", t.handler.name, "topic", t.d.topic, "failures", failures, "err", putErr)
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
		Class:    classOf(err),
		Err:      errorText(err),
		Attempts: t.attempt,
		Origin:   t.d.origin,
		At:       time.Now(),
	}
}

type timeoutError struct{ err error }

func (e *timeoutError) Error() string { return "timeout: " + e.err.Error() }
func (e *timeoutError) Unwrap() error { return e.err }

// isFinal reports whether no attempt can mend the error.
func isFinal(err error) bool {
	var envelope *envelopeError
	var stop *stopError
	return errors.As(err, &envelope) || errors.As(err, &stop)
}

func classOf(err error) Class {
	var envelope *envelopeError
	var stop *stopError
	var panicked *PanicError
	var timeout *timeoutError
	switch {
	case errors.As(err, &envelope):
		return envelope.class
	case errors.As(err, &stop):
		return ClassStopped
	case errors.As(err, &panicked):
		return ClassPanic
	case errors.As(err, &timeout):
		return ClassTimeout
	default:
		return ClassFailed
	}
}

// report logs a failed attempt. Texts that may quote the message stay out:
// those of decoders and, unless the runtime made them, of panics.
func (r *run) report(ctx context.Context, t *task, err error) {
	var envelope *envelopeError
	var later *laterError
	if err == nil || errors.Is(err, errRepeat) || errors.As(err, &envelope) || errors.As(err, &later) {
		return
	}
	log := r.log.With("handler", t.handler.name, "topic", t.d.topic, "attempt", t.attempt)
	var outage *inboxError
	if errors.As(err, &outage) {
		log.WarnContext(ctx, "worker: inbox failed, trying again without counting", "err", err)
		return
	}
	var panicked *PanicError
	if !errors.As(err, &panicked) {
		log.WarnContext(ctx, "worker: attempt failed", "class", classOf(err), "err", err)
		return
	}
	what := fmt.Sprintf("%T", panicked.Value)
	if rt, ok := panicked.Value.(runtime.Error); ok {
		what = rt.Error()
	}
	log.ErrorContext(ctx, "worker: handler panicked", "panic", what, "stack", string(panicked.Stack))
}
