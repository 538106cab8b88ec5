package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/internal/outage"
)

// BatchPublisher may be implemented beside Watermill's Publisher; the relay
// then sends many messages, of several topics and keys, in one call.
//
// Messages of one key stand in the batch in their order. The publisher stops a
// key at its first refusal: once one was not acknowledged, no later one of the
// same topic and key may reach the broker by this call; it is answered with
// [ErrSkipped]. A publisher that cannot promise this must not implement it.
type BatchPublisher interface {
	// PublishBatch returns one error per message, nil where the broker
	// acknowledged it. Topic and key are in the metadata
	// ([MetadataTopic], [MetadataKey]).
	PublishBatch(ctx context.Context, batch []*message.Message) []error
}

// ErrSkipped answers a message that was not sent because an earlier one of its
// key was refused.
var ErrSkipped = errors.New("outbox: skipped behind a refused message of its key")

type fault uint8

const (
	faultUnknown fault = iota // nobody said
	faultMessage              // the broker refuses this message
	faultBroker               // the broker cannot be reached or cannot take anything now
)

func (f fault) String() string { return [...]string{"unknown", "message", "broker"}[f] }

// refusedError is an error that is the message's own.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// Refused marks an error as the message's own: too large, no such topic, not
// allowed. Each one counts as an attempt. Nil stays nil.
func Refused(err error) error {
	if err == nil {
		return nil
	}
	return &refusedError{err}
}

// Unavailable marks an error as the broker's: not reachable, no leader,
// overloaded, timed out. It never counts as an attempt, so that an outage
// parks nothing. Nil stays nil.
func Unavailable(err error) error { return outage.Mark(err) }

// IsRefused reports whether an error bears the mark of [Refused].
func IsRefused(err error) bool {
	var refused *refusedError
	return errors.As(err, &refused)
}

// faultOf reads a mark; without one, an outage by its nature is the broker's, and
// so is the end of the call's time, which is the relay's own, or of the relay.
func faultOf(err error) fault {
	switch {
	case IsRefused(err):
		return faultMessage
	case outage.Of(context.Background(), err) != outage.None, errors.Is(err, context.Canceled):
		return faultBroker
	default:
		return faultUnknown
	}
}

// Backoff gives the delay after a failed attempt, counted from 1.
type Backoff func(attempt int) time.Duration
