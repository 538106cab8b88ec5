package idempotency

import "context"

// claimContext carries a claim. A type of its own: one allocation less than
// context.WithValue on a path that every request takes.
type claimContext struct {
	context.Context
	claim *Claim
}

type claimKey struct{}

func (c claimContext) Value(key any) any {
	if key == (claimKey{}) {
		return c.claim
	}
	return c.Context.Value(key)
}

// FromContext returns the claim that the caller runs under. There is none where
// the client sent no key and none is required, or where the route fails open.
func FromContext(ctx context.Context) (*Claim, bool) {
	claim, ok := ctx.Value(claimKey{}).(*Claim)
	return claim, ok
}
