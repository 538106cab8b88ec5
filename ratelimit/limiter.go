package ratelimit

import (
	"context"
	"time"
)

// Limiter decides. Drivers implement it; it is safe for concurrent use.
//
//   - Take is one atomic step on one server: all takes are charged or none. A
//     driver on a store that is spread over several servers goes through them in
//     the order given and gives back what it took before the one that denied.
//   - Being denied is no error.
//   - A denied attempt is charged nothing.
//   - The store's clock is the only one that counts.
//   - After an error nobody knows whether the takes were charged, unless it is
//     [ErrInvalid]. All others wrap [ErrUnavailable].
//   - ctx bounds every call, also against a server that hangs.
type Limiter interface {
	// Take charges each take to its bucket, if all of them fit.
	Take(ctx context.Context, takes ...Take) (Decision, error)
	// Refund gives back what an allowed decision was charged, as far as it has
	// not drained by itself since: it never makes room for more than a burst,
	// and nothing that was charged later gets cheaper.
	Refund(ctx context.Context, d Decision) error
}

// Take is one charge.
type Take struct {
	Limit Limit
	// Key is whom the limit counts: a buyer, an address ([AddrKey]), one word
	// for all. 1 to 4,096 bytes; stored as a hash.
	Key string
	// Cost is the number of units; 0 looks without charging. One above the
	// limit's capacity can never pass: see [Decision.Permanent].
	Cost int64
}

const (
	maxKey   = 4096
	maxTakes = 16
)

// Validate returns an [ErrInvalid] that names what is wrong, or nil.
func Validate(takes []Take) error {
	if len(takes) == 0 || len(takes) > maxTakes {
		return invalid("%d takes, not from 1 to %d", len(takes), maxTakes)
	}
	for i, t := range takes {
		if err := t.Limit.Validate(); err != nil {
			return err
		}
		switch {
		case t.Key == "" || len(t.Key) > maxKey:
			return invalid("limit %s: key has %d bytes, not from 1 to %d", t.Limit.Name, len(t.Key), maxKey)
		case t.Cost < 0 || t.Cost > maxBurst:
			return invalid("limit %s: cost is %d, not from 0 to 2^31", t.Limit.Name, t.Cost)
		}
		for _, earlier := range takes[:i] {
			// Each of two would not see the other's charge.
			if earlier.Limit.Name == t.Limit.Name && earlier.Key == t.Key {
				return invalid("limit %s: two takes from one bucket; add up their costs", t.Limit.Name)
			}
		}
	}
	return nil
}

// Decision is the answer to [Limiter.Take].
type Decision struct {
	Allowed bool
	// Permanent says that the attempt can never pass: its cost is above a
	// limit's capacity, or a quota is 0. There is no RetryAfter then.
	Permanent bool
	// RetryAfter is how long after a denial the same takes pass, if nobody
	// else takes meanwhile. Example: 3 takes of which two deny, for 1 s and
	// for 5 s: 5 s.
	RetryAfter time.Duration
	// Statuses has one entry for each take, in their order.
	Statuses []Status
}

// Status is what one limit had to say.
type Status struct {
	Take Take
	// Allowed says that this limit had room; the decision may still be no.
	Allowed bool
	// Remaining is how many units would pass now. Example: burst 10, 3 taken: 7.
	Remaining int64
	// RetryAfter is how long until the take fits; 0 where it did, or never will.
	RetryAfter time.Duration
	// ResetAfter is how long until the bucket is empty, so that a whole burst
	// passes. Example: quota 10/s, 3 taken: 300 ms.
	ResetAfter time.Duration
	// ResetAt is that moment on the store's clock.
	ResetAt time.Time
}
