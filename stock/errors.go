package stock

import (
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/internal/outage"
)

// A call ends in one of three ways: done, not done, or unknown. Every error
// below but [ErrUnknown] says that nothing was changed by this call. After any
// error that is none of them (a network error, an ended context) the outcome
// is unknown as well: repeat the call with the same [ID], or ask [Store.Lookup].
//
// ErrUnknown, ErrFenced, ErrBusy and ErrJournalFull are outages: a worker counts
// no attempt for them.
var (
	// ErrSoldOut is final: every unit is sold.
	ErrSoldOut = errors.New("stock: sold out")
	// ErrAllHeld says that no unit is free now, but some are only held. The
	// error is an [*AllHeldError], which knows when to ask again.
	ErrAllHeld = errors.New("stock: all units are held")
	// ErrLimit says that the buyer's limit would be passed. The error is a
	// [*LimitError], which knows what remains.
	ErrLimit = errors.New("stock: buyer's limit reached")
	// ErrTooManyAttempts says that the buyer has more reservations in the pool
	// than are kept for one buyer, most often such as were cancelled or expired.
	ErrTooManyAttempts = errors.New("stock: too many attempts by this buyer")
	// ErrUnknownSKU says that no pool of this name was opened.
	ErrUnknownSKU = errors.New("stock: unknown SKU")
	// ErrNotFound says that the pool holds no reservation with this ID: it was
	// never made, or it ended longer ago than the retention.
	ErrNotFound = errors.New("stock: no such reservation")
	// ErrFenced says that Redis and the ledger do not agree on the pool's
	// history (Redis lost writes, or a stale replica answers). Nothing is sold
	// until the pool is rebuilt. Try again later.
	ErrFenced = outage.New("stock: pool is fenced until it is rebuilt")
	// ErrMismatch says that the ID was used before with other content. The
	// error is a [*MismatchError], which names the field.
	ErrMismatch = errors.New("stock: reservation ID was used with other content")
	// ErrTooLate says that the attempt came after its deadline, or that the
	// hold it speaks of has ended.
	ErrTooLate = errors.New("stock: too late")
	// ErrNotOpen says that the sale has not begun. The error is a
	// [*NotOpenError], which knows when it will.
	ErrNotOpen = errors.New("stock: not open yet")
	// ErrClosed says that the sale has ended.
	ErrClosed = errors.New("stock: closed")
	// ErrPaused says that the sale is paused by its operator.
	ErrPaused = errors.New("stock: paused")
	// ErrConfirmed says that the reservation is sold already, so it can't be
	// cancelled; see [Store.Return].
	ErrConfirmed = errors.New("stock: already confirmed")
	// ErrCancelled says that the reservation was cancelled before.
	ErrCancelled = errors.New("stock: already cancelled")
	// ErrExpired says that the hold passed its time before it was confirmed.
	ErrExpired = errors.New("stock: hold expired")
	// ErrLate says that a payment came after its hold had ended, and that its
	// units can't be had any more (or the buyer has reached the limit
	// meanwhile): pay the buyer back.
	ErrLate = errors.New("stock: paid too late")
	// ErrNotConfirmed says that a reservation which is not sold can't be returned.
	ErrNotConfirmed = errors.New("stock: not confirmed")
	// ErrJournalFull says that unrelayed events have reached their bound, so
	// no new reservation is taken.
	ErrJournalFull = outage.New("stock: journal is full")
	// ErrBusy says that too many calls wait already, or that the server did not
	// answer the last ones. Nothing was sent.
	ErrBusy = outage.New("stock: too many calls waiting")
	// ErrUnknown says that the call was sent and its outcome is not known. The
	// same ID may be tried again.
	ErrUnknown = outage.New("stock: outcome unknown")
	// ErrInvalid says that the request is malformed; nothing was sent.
	ErrInvalid = errors.New("stock: invalid request")
	// ErrPoolExists says that the pool was opened before with other settings.
	ErrPoolExists = errors.New("stock: pool is open with other settings")
	// ErrVersion says that the pool's terms were changed since the adjustment
	// was decided. The error is a [*VersionError], which knows the version now.
	ErrVersion = errors.New("stock: terms were changed meanwhile")
	// ErrOver says that more units would be taken out than are free. The error
	// is an [*OverError], which knows how many are missing.
	ErrOver = errors.New("stock: units are held or sold")
	// ErrInUse says that a pool can't be retired yet.
	ErrInUse = errors.New("stock: pool is in use")
	// ErrRetired says that the pool is over for good.
	ErrRetired = errors.New("stock: pool is retired")
	// ErrLedger says that the ledger refused to sell more than there is. It
	// shows that Redis lost writes that nobody had noticed: [Store.Reconcile]
	// puts right what stands there.
	ErrLedger = errors.New("stock: ledger has no unit left")
)

// AllHeldError is [ErrAllHeld] with the time until the earliest live hold may
// end.
type AllHeldError struct{ RetryAfter time.Duration }

func (e *AllHeldError) Error() string {
	return fmt.Sprintf("%v, next may be free in %v", ErrAllHeld, e.RetryAfter)
}

// Is makes errors.Is(err, ErrAllHeld) true.
func (e *AllHeldError) Is(target error) bool { return target == ErrAllHeld }

// LimitError is [ErrLimit] with the units that the buyer may still reserve.
type LimitError struct{ Remaining int64 }

func (e *LimitError) Error() string { return fmt.Sprintf("%v, %d remaining", ErrLimit, e.Remaining) }

// Is makes errors.Is(err, ErrLimit) true.
func (e *LimitError) Is(target error) bool { return target == ErrLimit }

// ItemError is a refusal in a pool with several SKUs, and the SKU that it is
// about.
type ItemError struct {
	SKU string
	Err error // [ErrSoldOut], an [*AllHeldError], a [*LimitError] or [ErrUnknownSKU]; of a ledger also [ErrLedger] or an [*OverError]
}

func (e *ItemError) Error() string { return fmt.Sprintf("%v (%q)", e.Err, e.SKU) }

// Unwrap returns the refusal.
func (e *ItemError) Unwrap() error { return e.Err }

// VersionError is [ErrVersion] with the version that the terms have now.
type VersionError struct{ Version int64 }

func (e *VersionError) Error() string { return fmt.Sprintf("%v, version is %d", ErrVersion, e.Version) }

// Is makes errors.Is(err, ErrVersion) true.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }

// OverError is [ErrOver] with the units that are missing.
type OverError struct{ By int64 }

func (e *OverError) Error() string { return fmt.Sprintf("%v, over by %d", ErrOver, e.By) }

// Is makes errors.Is(err, ErrOver) true.
func (e *OverError) Is(target error) bool { return target == ErrOver }

// MismatchError is [ErrMismatch] with the field that differs: "buyer", "sku",
// "quantity" or "lines".
type MismatchError struct{ Field string }

func (e *MismatchError) Error() string { return fmt.Sprintf("%v: %s differs", ErrMismatch, e.Field) }

// Is makes errors.Is(err, ErrMismatch) true.
func (e *MismatchError) Is(target error) bool { return target == ErrMismatch }

// NotOpenError is [ErrNotOpen] with the time until the sale opens.
type NotOpenError struct{ RetryAfter time.Duration }

func (e *NotOpenError) Error() string {
	return fmt.Sprintf("%v, opens in %v", ErrNotOpen, e.RetryAfter)
}

// Is makes errors.Is(err, ErrNotOpen) true.
func (e *NotOpenError) Is(target error) bool { return target == ErrNotOpen }

// invalid returns an [ErrInvalid] that says what is wrong.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
