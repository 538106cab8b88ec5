package idempotency

import (
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/internal/outage"
)

// What an attempt may hear instead of a claim or a result. None of them means
// that the operation ran because of this attempt.
var (
	// ErrInFlight says that another attempt with this key is running. The
	// error is an [*InFlightError], which knows when to ask again.
	ErrInFlight = errors.New("idempotency: same key in flight")
	// ErrMismatch says that the key was used before with another payload.
	// Asking again never helps.
	ErrMismatch = errors.New("idempotency: key was used with another payload")
	// ErrUnknown says that an earlier attempt ended without a word and that
	// the policy is [Refuse].
	ErrUnknown = errors.New("idempotency: outcome of an earlier attempt is unknown")
	// ErrNotKept says that the operation was executed and its result was too
	// large, or streamed, and is not kept.
	ErrNotKept = errors.New("idempotency: executed, result not kept")
	// ErrCorrupt says that the stored record can't be read: damaged, or
	// written by a newer version. It is neither replayed nor overwritten.
	ErrCorrupt = errors.New("idempotency: stored record can't be read")
	// ErrNotSeen is the answer of [Keeper.BeginIfSeen] to a key that no attempt
	// has claimed before. Nothing was written.
	ErrNotSeen = errors.New("idempotency: key was not seen before")
	// ErrUnavailable says that the store did not answer in time or failed. It
	// wraps the cause.
	ErrUnavailable = outage.New("idempotency: store unavailable")
	// ErrInvalid says that an argument is out of bounds; nothing was sent.
	ErrInvalid = errors.New("idempotency: invalid argument")
)

// ErrStale says that the claim is no longer the caller's: its lease ended and
// another attempt took over, or it was settled before. Nothing was changed.
var ErrStale = errors.New("idempotency: claim is no longer held")

// ErrNotSent marks a store error after which surely nothing was done. A [Store]
// wraps it where it knows; any other error leaves the outcome unknown.
var ErrNotSent = errors.New("idempotency: nothing was sent")

// InFlightError is [ErrInFlight] with the time for which the running attempt's
// lease is still good. Most attempts end long before.
type InFlightError struct{ Lease time.Duration }

func (e *InFlightError) Error() string { return ErrInFlight.Error() }

// Is makes errors.Is(err, ErrInFlight) true.
func (e *InFlightError) Is(target error) bool { return target == ErrInFlight }

// NothingHappened marks err as a refusal before any effect, so that [Keeper.Do]
// releases the key and the next attempt runs. It returns nil for nil.
func NothingHappened(err error) error {
	if err == nil {
		return nil
	}
	return &nothingHappened{err}
}

type nothingHappened struct{ error }

func (e *nothingHappened) Unwrap() error { return e.error }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
