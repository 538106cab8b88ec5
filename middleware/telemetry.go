package middleware

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// telemetry counts what the middleware decides. Labels are fixed words only.
type telemetry struct {
	decisions metric.Int64Counter
	bypasses  metric.Int64Counter
}

func newTelemetry() *telemetry {
	meter := otel.Meter("github.com/firstcome/firstcome/middleware")
	t := new(telemetry)
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
