package idempotency

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// telemetry counts what a keeper does. Labels are fixed words only.
type telemetry struct {
	log         *slog.Logger
	attempts    metric.Int64Counter
	settlements metric.Int64Counter
	failures    metric.Int64Counter
	lastLog     atomic.Int64
	withdrawals semaphore
}

func newTelemetry(log *slog.Logger) *telemetry {
	meter := otel.Meter("github.com/firstcome/firstcome/idempotency")
	t := &telemetry{log: log, withdrawals: make(semaphore, 1024)}
	// The API returns a working no-op with every error.
	t.attempts, _ = meter.Int64Counter("firstcome.idempotency.attempts",
		metric.WithDescription("Attempts by what they met: claimed, rerun, replayed, in_flight, mismatch, unknown, not_kept, not_seen, corrupt, invalid, unavailable."))
	t.settlements, _ = meter.Int64Counter("firstcome.idempotency.settlements",
		metric.WithDescription("Claims by how they ended: done, not_kept, released, unknown, stale, failed, lost."))
	t.failures, _ = meter.Int64Counter("firstcome.idempotency.store.failures",
		metric.WithDescription("Store calls that failed, by step: claim, extend, settle."))
	return t
}

// Label sets are made once: making one for each call would cost more than the
// call.
var (
	attemptLabels = labels("outcome", "claimed", "rerun", "replayed", "in_flight", "mismatch", "unknown", "not_kept",
		"not_seen", "corrupt", "invalid", "unavailable")
	settleLabels  = labels("outcome", "done", "not_kept", "released", "unknown", "stale", "failed", "lost")
	failureLabels = labels("step", "claim", "extend", "settle")
	outcomeNames  = [...]string{OutcomeDone: "done", OutcomeNotKept: "not_kept", OutcomeReleased: "released", OutcomeUnknown: "unknown"}
)

func labels(name string, values ...string) map[string][]metric.AddOption {
	sets := make(map[string][]metric.AddOption, len(values))
	for _, v := range values {
		sets[v] = []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attribute.String(name, v)))}
	}
	return sets
}

func (t *telemetry) begun(ctx context.Context, a Attempt, err error) {
	t.attempts.Add(ctx, 1, attemptLabels[attemptLabel(a, err)]...)
}

func attemptLabel(a Attempt, err error) string {
	switch {
	case err == nil && a.Claim == nil:
		return "replayed"
	case err == nil && a.Claim.First():
		return "claimed"
	case err == nil:
		return "rerun"
	case errors.Is(err, ErrInFlight):
		return "in_flight"
	case errors.Is(err, ErrMismatch):
		return "mismatch"
	case errors.Is(err, ErrUnknown):
		return "unknown"
	case errors.Is(err, ErrNotKept):
		return "not_kept"
	case errors.Is(err, ErrNotSeen):
		return "not_seen"
	case errors.Is(err, ErrCorrupt):
		return "corrupt"
	}
	return "unavailable"
}

func (t *telemetry) settled(ctx context.Context, outcome Outcome, err error) {
	name := outcomeNames[outcome]
	switch {
	case errors.Is(err, ErrStale):
		name = "stale"
	case err != nil:
		name = "failed"
		t.storeFailed(ctx, "settle", err)
	}
	t.settlements.Add(ctx, 1, settleLabels[name]...)
}

func (t *telemetry) lost(ctx context.Context) { t.settlements.Add(ctx, 1, settleLabels["lost"]...) }

// storeFailed counts every failure and logs one a second: a store that is down
// fails for everybody at once.
func (t *telemetry) storeFailed(ctx context.Context, step string, err error) {
	t.failures.Add(ctx, 1, failureLabels[step]...)
	now, last := time.Now().UnixNano(), t.lastLog.Load()
	if now-last >= int64(time.Second) && t.lastLog.CompareAndSwap(last, now) {
		t.log.WarnContext(ctx, "idempotency store failed", "step", step, "error", err)
	}
}

// semaphore bounds goroutines that nobody waits for.
type semaphore chan struct{}

func (s semaphore) TryAcquire() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s semaphore) Release() { <-s }
