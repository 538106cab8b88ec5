package worker

import (
	"math/rand/v2"
	"time"
)

// Retry says how long to wait after the n-th failed attempt, n from 1. It keeps
// no state, so one function serves every handler.
type Retry func(attempt int) time.Duration

// Exponential doubles the delay from first up to cap, and draws each one evenly
// between its half and its whole, so that what failed together does not come
// back together.
func Exponential(first, cap time.Duration) Retry {
	return func(attempt int) time.Duration {
		d := doubled(first, cap, attempt)
		if d <= 1 {
			return max(d, 0)
		}
		return d/2 + rand.N(d-d/2+1)
	}
}

// doubled is first·2^(attempt-1), at most cap, without overflow.
func doubled(first, cap time.Duration, attempt int) time.Duration {
	d := first
	for range attempt - 1 {
		if d >= cap/2 {
			return cap
		}
		d *= 2
	}
	return min(d, cap)
}
