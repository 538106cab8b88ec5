package idempotency

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Claim is the right to run one attempt. The handler reads it; who called
// [Keeper.Begin] ends it. Its methods are safe for concurrent use.
type Claim struct {
	keeper *Keeper
	holder Holder

	nothing atomic.Bool

	mu      sync.Mutex
	settled bool
	timer   *time.Timer
	cancel  context.CancelCauseFunc
}

func newClaim(k *Keeper, req ClaimRequest, rec Record) *Claim {
	return &Claim{keeper: k, holder: Holder{
		ID: req.ID, Token: req.Token, Fingerprint: req.Fingerprint, Attempt: rec.Attempt, Started: rec.Started,
	}}
}

// ID names the operation: the same for every attempt with this key and scope.
func (c *Claim) ID() ClaimID { return c.holder.ID }

// First reports whether this is the first attempt that was ever seen for the
// key: no earlier one ran, released it, or died. Only then is there surely
// nothing to find. An attempt whose claim was lost on the way and withdrawn has
// not run, and does not count.
func (c *Claim) First() bool { return c.holder.Attempt == 1 }

// Attempt returns the number of this attempt, from 1.
func (c *Claim) Attempt() int { return c.holder.Attempt }

// Started returns when the first attempt claimed the key, on the store's clock.
func (c *Claim) Started() time.Time { return c.holder.Started }

// Holder returns what a [Store] needs to settle the claim itself, as an SQL
// store does in the handler's transaction.
func (c *Claim) Holder() Holder { return c.holder }

// NothingHappened says that the attempt ends, or is about to, without an
// effect, so that its answer is not stored and the next attempt runs. It is
// for handlers behind middleware; see [Claim.Release] for the step itself.
func (c *Claim) NothingHappened() { c.nothing.Store(true) }

// SaidNothingHappened reports whether [Claim.NothingHappened] was called.
func (c *Claim) SaidNothingHappened() bool { return c.nothing.Load() }

// Hold starts the heartbeat and returns the context to run under: it carries
// the claim for [FromContext], and is cancelled with [ErrStale] where another
// attempt has taken over. The heartbeat ends with the claim.
//
// A store that can't be reached does not cancel it. The lease may then end, and
// the outcome be unknown to others, while this attempt goes on.
func (c *Claim) Hold(ctx context.Context) context.Context {
	inner, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = cancel
	// A timer and no goroutine: most operations end before it fires.
	c.timer = time.AfterFunc(c.keeper.opts.Lease/3, func() { c.beat(inner) })
	return claimContext{Context: inner, claim: c}
}

// beat renews the lease once and sets the timer for the next time.
func (c *Claim) beat(ctx context.Context) {
	o := &c.keeper.opts
	limited, cancel := detached(ctx, min(o.StoreTimeout, o.Lease/3))
	defer cancel()
	err := c.keeper.store.Extend(limited, c.holder, o.terms())
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.settled:
	case errors.Is(err, ErrStale):
		c.keeper.meter.lost(ctx)
		c.cancel(ErrStale)
	default:
		if err != nil {
			c.keeper.meter.storeFailed(ctx, "extend", err)
		}
		c.timer.Reset(o.Lease / 3)
	}
}

// Complete stores the result; later attempts get it. A result above
// [Options.MaxResult] becomes [Claim.CompleteNotKept]. On [ErrStale] another
// attempt's result stands. On [ErrUnavailable] the outcome is unknown to later
// attempts: tell your caller the truth all the same.
//
// The result must not be changed after an error: it may still be on its way.
func (c *Claim) Complete(ctx context.Context, result []byte) error {
	if len(result) > c.keeper.opts.MaxResult {
		return c.settle(ctx, OutcomeNotKept, nil)
	}
	return c.settle(ctx, OutcomeDone, result)
}

// CompleteNotKept records that the operation was executed, and no result.
func (c *Claim) CompleteNotKept(ctx context.Context) error {
	return c.settle(ctx, OutcomeNotKept, nil)
}

// Release says that nothing happened: the key is free, and may be used with
// another payload too.
func (c *Claim) Release(ctx context.Context) error { return c.settle(ctx, OutcomeReleased, nil) }

// Abandon says that nobody knows whether something happened. Later attempts
// follow the [Policy], without waiting for the lease.
func (c *Claim) Abandon(ctx context.Context) error { return c.settle(ctx, OutcomeUnknown, nil) }

// settle stops the heartbeat and takes the one last step, on a context that
// outlives the caller's.
func (c *Claim) settle(ctx context.Context, outcome Outcome, result []byte) error {
	c.mu.Lock()
	if c.settled {
		c.mu.Unlock()
		return fmt.Errorf("settle: %w", ErrStale)
	}
	c.settled = true
	if c.timer != nil {
		c.timer.Stop()
		defer c.cancel(nil)
	}
	c.mu.Unlock()

	o := &c.keeper.opts
	limited, cancel := detached(ctx, o.StoreTimeout)
	defer cancel()
	err := c.keeper.store.Settle(limited, c.holder, o.settlement(outcome, result))
	c.keeper.meter.settled(ctx, outcome, err)
	if err == nil || errors.Is(err, ErrStale) || errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("settle: %w: %w", ErrUnavailable, err)
}
