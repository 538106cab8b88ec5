package redislimit

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"math"

	"github.com/firstcome/firstcome/internal/redisscript"
	"github.com/firstcome/firstcome/ratelimit"
)

var (
	//go:embed scripts/refund.lua
	refundSource string

	refundScript = redisscript.New("ratelimit.refund", refundSource, "allow-oom")
)

// Refund implements [ratelimit.Limiter]. Each bucket is a step of its own.
func (l *Limiter) Refund(ctx context.Context, d ratelimit.Decision) error {
	if !d.Allowed {
		return nil // nothing was charged
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	var operation [16]byte
	_, _ = rand.Read(operation[:]) // never fails

	var failed []error
	for i := range d.Statuses {
		s := &d.Statuses[i]
		if s.Take.Cost == 0 {
			continue
		}
		bucket := l.bucketKey(&s.Take)
		charge := int64(math.Round(s.Take.Limit.Interval() * float64(s.Take.Cost)))
		_, err := l.runner.Run(ctx, refundScript, []string{bucket, refundKey(bucket, operation)},
			charge, s.ResetAt.UnixMicro()-epoch)
		failed = append(failed, err)
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("refund: %w: %w", ratelimit.ErrUnavailable, err)
	}
	return nil
}
