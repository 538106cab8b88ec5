package middleware

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// telemetry counts what the middleware decides. Labels are fixed words only.
type telemetry struct {
	decisions metric.Int64Counter
	bypasses  metric.Int64Counter
	log       *slog.Logger
	lastLog   atomic.Int64
}

func newTelemetry() *telemetry {
	meter := otel.Meter("github.com/firstcome/firstcome/middleware")
	t := &telemetry{log: slog.Default()}
	// The API returns a working no-op with every error.
	t.decisions, _ = meter.Int64Counter("firstcome.ratelimit.decisions",
		metric.WithDescription("Requests by decision: allowed, denied, shadow_denied, failed_open, failed_closed."))
	t.bypasses, _ = meter.Int64Counter("firstcome.idempotency.bypassed",
		metric.WithDescription("Requests that ran without a claim since the store was down and the route fails open."))
	return t
}

// Label sets are made once.
var decisionLabels = func() map[string][]metric.AddOption {
	sets := map[string][]metric.AddOption{}
	for _, v := range []string{"allowed", "denied", "shadow_denied", "failed_open", "failed_closed"} {
		sets[v] = []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("decision", v)))}
	}
	return sets
}()

func (t *telemetry) decided(ctx context.Context, decision string) {
	t.decisions.Add(ctx, 1, decisionLabels[decision]...)
}

func (t *telemetry) bypassed(ctx context.Context) { t.bypasses.Add(ctx, 1) }

// tell logs, once a second at most, what the operator has to mend: a client can
// bring it about as often as it likes.
func (t *telemetry) tell(r *http.Request, level slog.Level, what string, err error) {
	now, last := time.Now().UnixNano(), t.lastLog.Load()
	if now-last < int64(time.Second) || !t.lastLog.CompareAndSwap(last, now) {
		return
	}
	t.log.LogAttrs(r.Context(), level, "middleware: a body was refused",
		slog.String("why", what), slog.String("method", r.Method), slog.String("route", r.Pattern), slog.Any("error", err))
}
