package sqldead_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/firstcome/firstcome/worker"
)

func TestMonitor_ShowsCountAndAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := databases[0]
		_, db := d.fresh(t)
		defer func() { _ = db.Close() }()
		s := store(t, db, d, nil)
		reader := metric.NewManualReader()
		m, err := worker.NewLetterMonitor(s, "worker", &worker.LetterMonitorOptions{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
		ok(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		ok(t, s.Put(ctx, worker.Letter{Handler: "h", Topic: "orders", EventID: "1", Class: worker.ClassFailed}))
		ok(t, s.Put(ctx, worker.Letter{Handler: "h", Topic: "orders", EventID: "2", Class: worker.ClassFailed}))
		time.Sleep(20 * time.Second)
		var got metricdata.ResourceMetrics
		ok(t, reader.Collect(ctx, &got))
		seen := map[string]string{}
		for _, instrument := range got.ScopeMetrics[0].Metrics {
			switch data := instrument.Data.(type) {
			case metricdata.Gauge[int64]:
				seen[instrument.Name] = fmt.Sprint(data.DataPoints[0].Value, data.DataPoints[0].Attributes.Len())
			case metricdata.Gauge[float64]:
				seen[instrument.Name] = fmt.Sprint(data.DataPoints[0].Value >= 5, data.DataPoints[0].Attributes.Len())
			}
		}
		if seen["firstcome.worker.letters"] != "2 5" || seen["firstcome.worker.letters.age"] != "true 5" {
			t.Errorf("got %v", seen)
		}
		cancel()
		ok(t, <-ended)
	})
}
