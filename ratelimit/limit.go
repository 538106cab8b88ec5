package ratelimit

import (
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/internal/outage"
)

// Limit is a quota of events over time. Limits are compared by value; they may
// be made anew for each request. A limit with other numbers counts in buckets of
// its own, also under the same name.
type Limit struct {
	// Name tells the limit's buckets from those of others, and is shown to
	// clients: 1 to 64 letters, digits and -_. characters.
	Name string
	// Quota is how many units pass per Window, on and on; 0 denies all. At
	// most one per microsecond.
	Quota int64
	// Window is from 1 ms to 366 days.
	Window time.Duration
	// Burst is how many units pass at once, when none has passed for long; 0
	// means Quota, or half of it rounded up where Strict is set.
	Burst int64
	// Strict lowers the steady rate to (Quota-Burst+1)/Window, so that no
	// stretch of time as long as Window ever sees more than Quota units. Burst
	// must not be above Quota then.
	Strict bool
}

// ErrInvalid says that a limit or a take is out of bounds. Nothing was sent.
var ErrInvalid = errors.New("ratelimit: invalid argument")

// ErrUnavailable says that the store did not answer in time or failed. It
// wraps the cause. The take may have been charged.
var ErrUnavailable = outage.New("ratelimit: store unavailable")

const (
	maxBurst  = 1 << 31
	maxWindow = 366 * 24 * time.Hour
	maxDrain  = 10 * maxWindow
)

// Validate returns an [ErrInvalid] that names the field, or nil.
func (l Limit) Validate() error {
	switch {
	case !validName(l.Name):
		return invalid("Limit.Name %.80q is not 1 to 64 letters, digits and -_. characters", l.Name)
	case l.Quota < 0:
		return invalid("limit %s: Quota is %d", l.Name, l.Quota)
	case l.Window < time.Millisecond || l.Window > maxWindow:
		return invalid("limit %s: Window is %v, not from 1ms to 366 days", l.Name, l.Window)
	case l.Quota > l.Window.Microseconds():
		return invalid("limit %s: Quota is %d, more than one per microsecond", l.Name, l.Quota)
	case l.Burst < 0 || l.Burst > maxBurst:
		return invalid("limit %s: Burst is %d, not from 0 to 2^31", l.Name, l.Burst)
	case l.Strict && l.Burst > l.Quota:
		return invalid("limit %s: Burst %d is above Quota %d, which Strict forbids", l.Name, l.Burst, l.Quota)
	case l.Quota > 0 && l.Interval()*float64(l.Capacity()) > float64(maxDrain.Microseconds()):
		return invalid("limit %s: a full bucket would drain for more than 10 years", l.Name)
	}
	return nil
}

func validName(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// Capacity returns how many units pass at once: Burst with its default.
func (l Limit) Capacity() int64 {
	switch {
	case l.Quota == 0:
		return 0
	case l.Burst > 0:
		return l.Burst
	case l.Strict:
		return (l.Quota + 1) / 2
	}
	return l.Quota
}

// Interval returns the microseconds in which a bucket drains by one unit. It is
// meaningless where Quota is 0.
func (l Limit) Interval() float64 {
	units := l.Quota
	if l.Strict {
		units = l.Quota - l.Capacity() + 1
	}
	return float64(l.Window.Nanoseconds()) / 1e3 / float64(units)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
