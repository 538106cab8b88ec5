package journal_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/firstcome/firstcome/outbox/journal"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

func TestTelemetry_TellsWhatIsRelayedAndWhatIsStuckAndNamesNoKey(t *testing.T) {
	collector := sdkmetric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(collector)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		trims := 0
		m.fail = func(step string) error {
			if step == "trim" {
				if trims++; trims == 1 {
					return errors.New("no")
				}
			}
			return nil
		}
		r := outboxtest.NewRecorder(func(_ string, msg *message.Message) error {
			if msg.Metadata["firstcome-key"] == "secret" {
				return errLarge
			}
			return nil
		})
		m.add("fine", "a", "b")
		start(t, m, r, journal.These("fine", "stopped"), journal.Options{RefusedRetry: time.Hour})
		pass(5 * time.Second)
		m.put("fine", journal.Event{SKU: "fine", Epoch: 1, Seq: 3, Kind: "late", ID: "a", At: time.Now()},
			journal.Event{SKU: "fine", Epoch: 1, Seq: 6, Kind: "late", ID: "a", At: time.Now()})
		m.add("stopped", "secret")
		pass(30 * time.Second)
		var got metricdata.ResourceMetrics
		if err := collector.Collect(context.Background(), &got); err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, scope := range got.ScopeMetrics {
			for _, metric := range scope.Metrics {
				values[metric.Name] = sum(t, metric.Data)
			}
		}
		for name, want := range map[string]float64{"published": 4, "refused": 1, "failures": 1, "gaps": 2, "lag": 4, "halted": 1, "oldest": 30} {
			if value, there := values["firstcome.journal."+name]; !there || value < want || value > want+0.9 {
				t.Errorf("%s is %v (there: %v), want %v", name, value, there, want)
			}
		}
	})
}

// sum adds up all points, and sees to their attributes.
func sum(t *testing.T, data metricdata.Aggregation) (total float64) {
	t.Helper()
	check := func(set attribute.Set) {
		if text := set.Encoded(attribute.DefaultEncoder()); strings.Contains(text, "secret") || !strings.Contains(text, "topic="+topic) {
			t.Errorf("attributes: %s", text)
		}
	}
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			total += float64(p.Value)
			check(p.Attributes)
		}
	case metricdata.Gauge[int64]:
		for _, p := range d.DataPoints {
			total += float64(p.Value)
			check(p.Attributes)
		}
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			total += p.Value
			check(p.Attributes)
		}
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			total += float64(p.Count)
			check(p.Attributes)
		}
	}
	return total
}
