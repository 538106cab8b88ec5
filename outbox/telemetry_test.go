package outbox_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

func TestTelemetry_TellsTheQueueAndNamesTopicsOnly(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })
	bubble(t, func(t *testing.T, r *rig) {
		r.Answer = refuse(map[string]int{"secret/0": 9}, outboxtest.ErrPoison)
		_, stop := r.start(outbox.Options{MaxAttempts: 1})
		r.add(msg("secret", 0), msg("secret", 1), msg("other", 0), msg("other", 1))
		pass(5 * time.Second)
		var got metricdata.ResourceMetrics
		if err := reader.Collect(context.Background(), &got); err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, scope := range got.ScopeMetrics {
			for _, m := range scope.Metrics {
				values[m.Name] = sum(t, m.Data)
			}
		}
		for name, want := range map[string]float64{
			"firstcome.outbox.published": 2, "firstcome.outbox.refused": 1, "firstcome.outbox.parked": 1, "firstcome.outbox.lag": 2,
			"firstcome.outbox.pending": 0, "firstcome.outbox.parked.current": 1, "firstcome.outbox.held": 1, "firstcome.outbox.oldest": 0,
		} {
			if value, ok := values[name]; !ok || value != want {
				t.Errorf("%s is %v (there: %v), want %v", name, value, ok, want)
			}
		}
		_ = stop()
	})
}

// sum adds up all points, and sees to their attributes.
func sum(t *testing.T, data metricdata.Aggregation) float64 {
	t.Helper()
	total := 0.0
	check := func(text string) {
		if strings.Contains(text, "secret") {
			t.Errorf("a key is among the attributes: %s", text)
		}
	}
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			total += float64(p.Value)
			check(p.Attributes.Encoded(attribute.DefaultEncoder()))
		}
	case metricdata.Gauge[int64]:
		for _, p := range d.DataPoints {
			total += float64(p.Value)
		}
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			total += p.Value
		}
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			total += float64(p.Count)
		}
	}
	return total
}
