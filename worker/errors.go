package worker

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/firstcome/firstcome/internal/outage"
)

var (
	// ErrStarted is returned by a second [Worker.Run], and by [Handle] after
	// the first.
	ErrStarted = errors.New("worker: already started")
	// ErrStillRunning is returned by [Worker.Run] when handlers ignored the end
	// of their context and run on. Their events were not acknowledged.
	ErrStillRunning = errors.New("worker: handlers still running")
)

// Stop wraps an error that no further attempt will mend: the event goes to the
// dead letters at once, with [ClassStopped].
func Stop(err error) error {
	if err == nil {
		err = errors.New("stopped")
	}
	return &stopError{err}
}

// Later asks for the event again after d. It is no failure and counts no
// attempt. Later events of the key wait meanwhile.
func Later(d time.Duration) error { return &laterError{max(d, 0)} }

// Unavailable says that the handler failed because something that it needs is
// away: a payment provider that answers 503, say. As long as that lasts it counts
// no attempt, and the event waits; see [Options.OutagePatience]. Connections that
// are refused, broken or time out, and what Redis, PostgreSQL, MariaDB, SQLite and
// this module's stores say when they can't take work, are recognised without it.
// Nil stays nil.
func Unavailable(err error) error { return outage.Mark(err) }

type stopError struct{ err error }

func (e *stopError) Error() string { return "stop: " + e.err.Error() }
func (e *stopError) Unwrap() error { return e.err }

type laterError struct{ delay time.Duration }

func (e *laterError) Error() string { return "later: in " + e.delay.String() }

// PanicError is the failure of a handler that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

// Error implements error; it holds the value, not the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value where it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// envelopeError is what the message itself is guilty of: no attempt can mend it.
type envelopeError struct {
	class Class
	err   error
}

func (e *envelopeError) Error() string { return e.err.Error() }
func (e *envelopeError) Unwrap() error { return e.err }

// inboxError is a failure of the inbox, not of the handler: it is an outage,
// whatever it says.
type inboxError struct{ err error }

func (e *inboxError) Error() string { return e.err.Error() }
func (e *inboxError) Unwrap() error { return e.err }

// errRepeat says that the event had been finished before.
var errRepeat = errors.New("finished before")

// guard turns a panic into an error, so that it is an attempt like any other.
func guard(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return fn()
}
