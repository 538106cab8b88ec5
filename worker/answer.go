package worker

import (
	"context"
	"errors"

	"github.com/firstcome/firstcome/internal/outage"
)

// answer is what one attempt says.
type answer uint8

const (
	answerDone        answer = iota // the handler finished the event
	answerRepeat                    // it had finished it before
	answerLater                     // it asked for it again: see [Later]
	answerFinal                     // no attempt will mend it: [Stop], or the message itself
	answerContention                // another transaction was in the way
	answerUnavailable               // something that the handler or the inbox needs is away
	answerFailed                    // anything else
	answerNone                      // a stop came between
)

// answerOf reads an attempt's error. ctx is the attempt's own and not yet
// cancelled by its end: a timeout tells of a server only while there was time.
func answerOf(ctx context.Context, err error) answer {
	var later *laterError
	var inbox *inboxError
	switch {
	case err == nil:
		return answerDone
	case errors.Is(err, errRepeat):
		return answerRepeat
	case errors.As(err, &later):
		return answerLater
	case isFinal(err):
		return answerFinal
	}
	switch outage.Of(ctx, err) {
	case outage.Contention:
		return answerContention
	case outage.Unavailable:
		return answerUnavailable
	}
	if errors.As(err, &inbox) { // whatever it is, the handler is not to blame
		return answerUnavailable
	}
	return answerFailed
}

// isFinal reports whether no attempt can mend the error.
func isFinal(err error) bool {
	var envelope *envelopeError
	var stop *stopError
	return errors.As(err, &envelope) || errors.As(err, &stop)
}

// classOf is the class of a dead letter whose last attempt ended so.
func classOf(a answer, err error) Class {
	var envelope *envelopeError
	var stop *stopError
	var panicked *PanicError
	var timeout *timeoutError
	switch {
	case errors.As(err, &envelope):
		return envelope.class
	case errors.As(err, &stop):
		return ClassStopped
	case a == answerUnavailable || a == answerContention:
		return ClassUnavailable
	case errors.As(err, &panicked):
		return ClassPanic
	case errors.As(err, &timeout):
		return ClassTimeout
	default:
		return ClassFailed
	}
}
