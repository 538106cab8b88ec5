package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/firstcome/firstcome/outbox/journal"

const (
	faultMessage = "message" // the broker refuses this message
	faultBroker  = "broker"  // anything else
)

// telemetry is the relay's metrics. The topic is an attribute of each; pools are
// not, there may be many.
type telemetry struct {
	meter     metric.Meter
	topic     attribute.KeyValue
	published metric.Int64Counter
	refusals  metric.Int64Counter
	failures  metric.Int64Counter
	gaps      metric.Int64Counter
	lag       metric.Float64Histogram
}

func newTelemetry(topic string) (*telemetry, error) {
	t := &telemetry{meter: otel.Meter(scope), topic: attribute.String("topic", topic)}
	var failed error
	counter := func(name, what, unit string) metric.Int64Counter {
		c, err := t.meter.Int64Counter("firstcome.journal."+name, metric.WithDescription(what), metric.WithUnit(unit))
		failed = errors.Join(failed, err)
		return c
	}
	t.published = counter("published", "Events acknowledged by the broker.", "{event}")
	t.refusals = counter("refused", "Events that were sent and not acknowledged.", "{attempt}")
	t.failures = counter("failures", "Calls for pools, leases, entries and trims that failed.", "{call}")
	t.gaps = counter("gaps", "Events missing in a journal.", "{event}")
	var err error
	t.lag, err = t.meter.Float64Histogram("firstcome.journal.lag",
		metric.WithDescription("Time from an event to the broker's acknowledgement."), metric.WithUnit("s"))
	if failed = errors.Join(failed, err); failed != nil {
		return nil, fmt.Errorf("metrics: %w", failed)
	}
	return t, nil
}

// observe registers gauges of what the relay's pools have seen.
func (t *telemetry) observe(r *Relay) (stop func(), err error) {
	halted, err1 := t.meter.Int64ObservableGauge("firstcome.journal.halted",
		metric.WithDescription("Pools stopped by a refused event."), metric.WithUnit("{pool}"))
	oldest, err2 := t.meter.Float64ObservableGauge("firstcome.journal.oldest",
		metric.WithDescription("Age of the oldest event that was seen and not acknowledged."), metric.WithUnit("s"))
	if err = errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("journal: metrics: %w", err)
	}
	registration, err := t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		stopped, first := r.standing()
		age := 0.0
		if first > 0 {
			age = max(0, time.Since(time.UnixMilli(first)).Seconds())
		}
		o.ObserveInt64(halted, stopped, metric.WithAttributes(t.topic))
		o.ObserveFloat64(oldest, age, metric.WithAttributes(t.topic))
		return nil
	}, halted, oldest)
	if err != nil {
		return nil, fmt.Errorf("journal: metrics: %w", err)
	}
	return func() { _ = registration.Unregister() }, nil
}

// standing counts the stopped pools and finds the oldest event not acknowledged.
func (r *Relay) standing() (halted, oldest int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pools {
		if p.gone.Load() {
			continue
		}
		if p.halted.Load() {
			halted++
		}
		if at := p.oldest.Load(); at > 0 && (oldest == 0 || at < oldest) {
			oldest = at
		}
	}
	return halted, oldest
}

// acknowledged counts an event; clocks that differ make no negative lag.
func (t *telemetry) acknowledged(lag time.Duration) {
	t.published.Add(context.Background(), 1, metric.WithAttributes(t.topic))
	t.lag.Record(context.Background(), max(0, lag.Seconds()), metric.WithAttributes(t.topic))
}

func (t *telemetry) refused(fault string) {
	t.refusals.Add(context.Background(), 1, metric.WithAttributes(t.topic, attribute.String("fault", fault)))
}

func (t *telemetry) failed(step string) {
	t.failures.Add(context.Background(), 1, metric.WithAttributes(t.topic, attribute.String("step", step)))
}

func (t *telemetry) gap(missing int64) {
	t.gaps.Add(context.Background(), missing, metric.WithAttributes(t.topic))
}
