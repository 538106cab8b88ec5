package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/firstcome/firstcome/outbox"

// telemetry is the relay's metrics and spans. Attributes are topics only: they
// are few, and listed by the operator.
type telemetry struct {
	store   Store
	tracer  trace.Tracer
	meter   metric.Meter
	sent    metric.Int64Counter
	refusal metric.Int64Counter
	parking metric.Int64Counter
	lag     metric.Float64Histogram
	topics  map[string]metric.MeasurementOption

	mu    sync.Mutex
	stats Stats
	at    time.Time
}

func newTelemetry(store Store, topics map[string]bool) (*telemetry, error) {
	t := &telemetry{store: store, tracer: otel.Tracer(scope), meter: otel.Meter(scope), topics: map[string]metric.MeasurementOption{}}
	for topic := range topics {
		t.topics[topic] = topicAttribute(topic)
	}
	t.topics[""] = topicAttribute("other")
	var err error
	if t.sent, err = t.meter.Int64Counter("firstcome.outbox.published",
		metric.WithDescription("Messages acknowledged by the broker."), metric.WithUnit("{message}")); err != nil {
		return nil, err
	}
	if t.refusal, err = t.meter.Int64Counter("firstcome.outbox.refused",
		metric.WithDescription("Publishing attempts that failed."), metric.WithUnit("{attempt}")); err != nil {
		return nil, err
	}
	if t.parking, err = t.meter.Int64Counter("firstcome.outbox.parked",
		metric.WithDescription("Messages given up after all attempts."), metric.WithUnit("{message}")); err != nil {
		return nil, err
	}
	t.lag, err = t.meter.Float64Histogram("firstcome.outbox.lag",
		metric.WithDescription("Time from a message's writing to the broker's acknowledgement."), metric.WithUnit("s"))
	return t, err
}

// observe registers gauges of what stands in the store. They are asked for only
// when a provider collects, and the store at most every ten seconds.
func (t *telemetry) observe() (stop func(), err error) {
	count := func(name, what string) metric.Int64ObservableGauge {
		g, e := t.meter.Int64ObservableGauge("firstcome.outbox."+name, metric.WithDescription(what), metric.WithUnit("{message}"))
		err = errors.Join(err, e)
		return g
	}
	pending := count("pending", "Messages waiting to be relayed.")
	parked := count("parked.current", "Messages given up and not yet looked after.")
	held := count("held", "Messages waiting behind a parked one of their key.")
	oldest, e := t.meter.Float64ObservableGauge("firstcome.outbox.oldest",
		metric.WithDescription("Age of the oldest message waiting."), metric.WithUnit("s"))
	if err = errors.Join(err, e); err != nil {
		return nil, fmt.Errorf("outbox: metrics: %w", err)
	}
	registration, err := t.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		stats, err := t.recent(ctx)
		if err != nil {
			return err
		}
		o.ObserveInt64(pending, stats.Pending)
		o.ObserveInt64(parked, stats.Parked)
		o.ObserveInt64(held, stats.Held)
		o.ObserveFloat64(oldest, stats.Oldest.Seconds())
		return nil
	}, pending, parked, held, oldest)
	if err != nil {
		return nil, fmt.Errorf("outbox: metrics: %w", err)
	}
	return func() { _ = registration.Unregister() }, nil
}

// recent is the store's state, at most ten seconds old: counting a long queue
// is work.
func (t *telemetry) recent(ctx context.Context) (Stats, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.at.IsZero() && time.Since(t.at) < 10*time.Second {
		return t.stats, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stats, err := t.store.Stats(ctx)
	if err != nil {
		return Stats{}, err
	}
	t.stats, t.at = stats, time.Now()
	return stats, nil
}

func (t *telemetry) published(topic string, lag time.Duration) {
	t.sent.Add(context.Background(), 1, t.topic(topic))
	t.lag.Record(context.Background(), lag.Seconds(), t.topic(topic))
}

func (t *telemetry) refused(topic string, whose fault) {
	t.refusal.Add(context.Background(), 1, t.topic(topic), metric.WithAttributes(attribute.String("fault", whose.String())))
}

func (t *telemetry) parked(topic string, n int) {
	t.parking.Add(context.Background(), int64(n), t.topic(topic))
}

// topic is a topic's attribute. A topic that is not on the list is not named:
// there is no bound on what could stand in a row.
func (t *telemetry) topic(name string) metric.MeasurementOption {
	if option, ok := t.topics[name]; ok {
		return option
	}
	return t.topics[""]
}

func topicAttribute(name string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("topic", name)))
}

// span covers one attempt. It is linked to the trace that wrote the message
// rather than a child of it: it may come an hour later, and more than once. The
// trace itself travels on in the headers.
func (t *telemetry) span(ctx context.Context, m *Message) (context.Context, func(error)) {
	opts := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(attribute.String("messaging.destination.name", m.Topic)),
	}
	if m.Headers[MetadataTrace] != "" {
		origin := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(m.Headers))
		opts = append(opts, trace.WithLinks(trace.LinkFromContext(origin)))
	}
	ctx, span := t.tracer.Start(ctx, "outbox publish", opts...)
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, "refused")
		}
		span.End()
	}
}
