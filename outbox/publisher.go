package outbox

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
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

// verdict is an error with a publisher's verdict on whose fault it is.
type verdict struct {
	error
	fault fault
}

func (m *verdict) Unwrap() error { return m.error }

type fault uint8

const (
	faultUnknown fault = iota // nobody said
	faultMessage              // the broker refuses this message
	faultBroker               // the broker cannot be reached or cannot take anything now
)

func (f fault) String() string { return [...]string{"unknown", "message", "broker"}[f] }

// Refused marks an error as the message's own: too large, no such topic, not
// allowed. Each one counts as an attempt. Nil stays nil.
func Refused(err error) error { return withVerdict(err, faultMessage) }

// Unavailable marks an error as the broker's: not reachable, no leader,
// overloaded, timed out. It never counts as an attempt, so that an outage
// parks nothing. Nil stays nil.
func Unavailable(err error) error { return withVerdict(err, faultBroker) }

// IsRefused reports whether an error bears the mark of [Refused].
func IsRefused(err error) bool {
	var m *verdict
	return errors.As(err, &m) && m.fault == faultMessage
}

func withVerdict(err error, f fault) error {
	if err == nil {
		return nil
	}
	return &verdict{error: err, fault: f}
}

// faultOf reads a mark; without one, errors of the network and of time are
// the broker's.
func faultOf(err error) fault {
	var m *verdict
	if errors.As(err, &m) {
		return m.fault
	}
	var netErr net.Error
	switch {
	case errors.As(err, &netErr),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return faultBroker
	}
	return faultUnknown
}

// Backoff gives the delay after a failed attempt, counted from 1.
type Backoff func(attempt int) time.Duration
