package idempotency

import (
	"context"
	"errors"
)

// Result is what [Keeper.Do] returns.
type Result struct {
	Bytes    []byte // of this attempt, or of the one that ran before
	Replayed bool   // fn did not run
}

// Do runs fn once for all attempts with this key and scope, and returns its
// result to each. The payload must be the same in all of them ([ErrMismatch]).
//
// An error of fn marked by [NothingHappened] releases the key; any other leaves
// the outcome unknown, as a panic does, which goes on. An error of the store
// after fn has succeeded is not returned: fn's result is the truth, and later
// attempts meet an unknown outcome. Other errors are those of [Keeper.Begin].
func (k *Keeper) Do(ctx context.Context, scope, key string, payload []byte,
	fn func(context.Context, *Claim) ([]byte, error),
) (Result, error) {
	attempt, err := k.Begin(ctx, scope, key, k.Fingerprint(payload))
	if err != nil {
		return Result{}, err
	}
	if attempt.Claim == nil {
		return Result{Bytes: attempt.Result, Replayed: true}, nil
	}
	return attempt.Claim.run(ctx, fn)
}

func (c *Claim) run(ctx context.Context, fn func(context.Context, *Claim) ([]byte, error)) (Result, error) {
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit: it goes on after this
			_ = c.Abandon(ctx)
		}
	}()
	result, err := fn(c.Hold(ctx), c)
	returned = true
	var nothing *nothingHappened
	switch {
	case errors.As(err, &nothing):
		_ = c.Release(ctx)
		return Result{}, err
	case err != nil:
		_ = c.Abandon(ctx)
		return Result{}, err
	}
	_ = c.Complete(ctx, result)
	return Result{Bytes: result}, nil
}
