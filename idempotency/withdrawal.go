package idempotency

import (
	"context"
	"errors"
	"time"
)

// withdrawPause is how long the second try to withdraw a claim waits for a store
// that has failed the first.
const withdrawPause = time.Second

// withdraw takes back a claim whose reply was lost. Nothing ran, so it may be
// released; without this the key would be refused until the lease ends. The
// claim may land later: the store remembers that it was withdrawn. It is an
// attempt, of two tries and so bounded in time, made by a bounded number of
// goroutines: a store that is down has other worries, and then the lease ends
// it.
func (k *Keeper) withdraw(ctx context.Context, req ClaimRequest) {
	if req.Look || !k.meter.withdrawals.TryAcquire() {
		return
	}
	go func() {
		defer k.meter.withdrawals.Release()
		if !k.tryWithdraw(ctx, &req) {
			time.Sleep(withdrawPause)
			k.tryWithdraw(ctx, &req)
		}
	}()
}

// tryWithdraw reports whether the store has answered: the claim was withdrawn,
// or had ended otherwise.
func (k *Keeper) tryWithdraw(ctx context.Context, req *ClaimRequest) bool {
	limited, cancel := detached(ctx, k.opts.StoreTimeout)
	defer cancel()
	h := Holder{ID: req.ID, Token: req.Token, Fingerprint: req.Fingerprint}
	err := k.store.Settle(limited, h, k.opts.settlement(OutcomeReleased, nil))
	return err == nil || errors.Is(err, ErrStale) || errors.Is(err, ErrCorrupt)
}
