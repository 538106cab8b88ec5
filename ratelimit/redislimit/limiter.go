package redislimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/redisscript"
	"github.com/firstcome/firstcome/ratelimit"
)

// Options tunes a [Limiter]; nil and zero fields take the defaults.
type Options struct {
	// Prefix starts every key; default "fc:rl". Letters, digits and :-_. only,
	// 64 at most.
	Prefix string
	// Timeout bounds each call, the wait of a crowd included; default 2 s.
	Timeout time.Duration
	// Sharded asks for each bucket by itself. It is set by itself for a
	// *redis.ClusterClient and a *redis.Ring; set it where such a client is
	// wrapped, or behind a proxy that spreads keys.
	Sharded bool
	// Logger hears when Redis is away and when it is back; default slog.Default.
	Logger *slog.Logger
}

// Limiter is a [ratelimit.Limiter] in Redis.
type Limiter struct {
	runner  *redisscript.Runner
	trip    *trip
	keyHead string
	timeout time.Duration
}

var _ ratelimit.Limiter = (*Limiter)(nil)

const defaultTimeout = 2 * time.Second

// New returns a Limiter on client, which it neither dials nor closes.
func New(client redis.UniversalClient, opts *Options) (*Limiter, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	switch {
	case client == nil:
		return nil, errors.New("redislimit: client is nil")
	case !validPrefix(o.Prefix):
		return nil, fmt.Errorf("redislimit: Options.Prefix %q has characters other than letters, digits and :-_. or more than 64", o.Prefix)
	case o.Timeout < time.Millisecond:
		return nil, fmt.Errorf("redislimit: Options.Timeout is %v, less than 1ms", o.Timeout)
	}
	switch client.(type) {
	case *redis.ClusterClient, *redis.Ring:
		o.Sharded = true
	}
	runner := redisscript.NewRunner(client, &redisscript.Options{Timeout: o.Timeout, Logger: o.Logger, Owner: "redislimit"})
	return &Limiter{runner: runner, trip: newTrip(runner, &o), keyHead: keyHead(o.Prefix), timeout: o.Timeout}, nil
}

// Take implements [ratelimit.Limiter].
func (l *Limiter) Take(ctx context.Context, takes ...ratelimit.Take) (ratelimit.Decision, error) {
	if err := ratelimit.Validate(takes); err != nil {
		return ratelimit.Decision{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()

	d := ratelimit.Decision{Allowed: true, Statuses: make([]ratelimit.Status, len(takes))}
	asked := make([]int, 0, 8)
	for i, t := range takes {
		d.Statuses[i] = ratelimit.Status{Take: t, Allowed: t.Cost <= t.Limit.Capacity() && t.Limit.Quota > 0}
		if !d.Statuses[i].Allowed {
			d.Allowed, d.Permanent = false, true
		}
		if t.Limit.Quota > 0 { // a limit of nothing has no bucket to ask
			asked = append(asked, i)
		}
	}
	var err error
	if l.trip.sharded && len(asked) > 1 {
		err = l.takeEach(ctx, &d, asked)
	} else if len(asked) > 0 {
		err = l.takeAll(ctx, &d, asked)
	}
	if err != nil {
		return ratelimit.Decision{}, fmt.Errorf("take: %w: %w", ratelimit.ErrUnavailable, err)
	}
	if !d.Permanent {
		for i := range d.Statuses {
			d.RetryAfter = max(d.RetryAfter, d.Statuses[i].RetryAfter)
		}
	}
	return d, nil
}

// takeAll asks for the buckets in one script.
func (l *Limiter) takeAll(ctx context.Context, d *ratelimit.Decision, asked []int) error {
	v, err := l.trip.do(ctx, attempt{charges: l.charges(d, asked)})
	if err != nil {
		return err
	}
	if !v.allowed {
		d.Allowed = false
	}
	for n, i := range asked {
		s, answer := &d.Statuses[i], v.numbers[3*n:]
		s.Remaining = answer[0]
		s.ResetAfter = time.Duration(answer[1]) * time.Microsecond
		s.ResetAt = time.UnixMicro(epoch + v.now + answer[1])
		s.RetryAfter = time.Duration(answer[2]) * time.Microsecond
		if s.RetryAfter > 0 {
			s.Allowed = false
		}
	}
	return nil
}

// takeEach asks for bucket after bucket, and gives back what it took when one
// denies or fails.
func (l *Limiter) takeEach(ctx context.Context, d *ratelimit.Decision, asked []int) error {
	for n := range asked {
		err := l.takeAll(ctx, d, asked[n:n+1])
		if err == nil && (d.Allowed || d.Permanent) {
			continue
		}
		taken := ratelimit.Decision{Allowed: true}
		for _, i := range asked[:n] {
			taken.Statuses = append(taken.Statuses, d.Statuses[i])
		}
		l.giveBack(ctx, taken)
		if err != nil {
			return err
		}
		for _, i := range asked[n+1:] { // not asked: nothing is known of them but that they did not deny
			d.Statuses[i].Remaining = d.Statuses[i].Take.Limit.Capacity()
		}
		return nil
	}
	return nil
}

// giveBack refunds on a context that outlives the caller's. A refund that fails
// stays charged, until it drains.
func (l *Limiter) giveBack(ctx context.Context, d ratelimit.Decision) {
	if len(d.Statuses) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.timeout)
	defer cancel()
	_ = l.Refund(ctx, d)
}
