package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/firstcome/firstcome/worker"

// telemetry are the instruments; attributes are handler, topic and outcome only.
type telemetry struct {
	tracer       trace.Tracer
	attempts     metric.Int64Counter
	duration     metric.Float64Histogram
	deadLetters  metric.Int64Counter
	inFlight     metric.Int64UpDownCounter
	resubscribes metric.Int64Counter
	outages      metric.Int64UpDownCounter
	waiting      metric.Int64UpDownCounter
}

func newTelemetry(o *Options) (*telemetry, error) {
	meter := o.MeterProvider.Meter(scope)
	t := &telemetry{tracer: o.TracerProvider.Tracer(scope)}
	var errs [7]error
	t.attempts, errs[0] = meter.Int64Counter("firstcome.worker.attempts",
		metric.WithDescription("Attempts by outcome: done, repeat, later, outage, contention, failed, unavailable, panic, timeout, stopped, undecodable, unknown-format, no-id."))
	t.duration, errs[1] = meter.Float64Histogram("firstcome.worker.duration", metric.WithUnit("s"),
		metric.WithDescription("Time of one attempt, inbox included."))
	t.deadLetters, errs[2] = meter.Int64Counter("firstcome.worker.dead_letters",
		metric.WithDescription("Events put to the dead letters, by class."))
	t.inFlight, errs[3] = meter.Int64UpDownCounter("firstcome.worker.in_flight",
		metric.WithDescription("Events received and not yet finished."))
	t.resubscribes, errs[4] = meter.Int64Counter("firstcome.worker.resubscribes",
		metric.WithDescription("Subscriptions that ended by themselves or could not begin."))
	t.outages, errs[5] = meter.Int64UpDownCounter("firstcome.worker.outage",
		metric.WithDescription("1 while a handler is in an outage: events wait for something that is away."))
	t.waiting, errs[6] = meter.Int64UpDownCounter("firstcome.worker.waiting_keys",
		metric.WithDescription("Keys of a handler that wait because of an outage."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("worker: instruments: %w", err)
	}
	return t, nil
}

// begin starts an attempt's span, linked to the trace that sent the event: the
// two are apart in time, and one trace may cause many events.
func (m *telemetry) begin(ctx context.Context, t *task) (context.Context, func(outcome string)) {
	began := time.Now()
	remote := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(
		context.Background(), propagation.MapCarrier(t.d.msg.Metadata)))
	opts := []trace.SpanStartOption{
		trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.String("handler", t.handler.name), attribute.Int("attempt", t.attempt)),
	}
	if remote.IsValid() {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: remote}))
	}
	ctx, span := m.tracer.Start(ctx, "process "+t.d.topic, opts...)
	return ctx, func(outcome string) {
		if outcome != "done" && outcome != "repeat" && outcome != "later" {
			span.SetStatus(codes.Error, outcome)
		}
		span.End()
		attrs := metric.WithAttributeSet(attribute.NewSet(
			attribute.String("handler", t.handler.name), attribute.String("topic", t.d.topic), attribute.String("outcome", outcome)))
		m.attempts.Add(ctx, 1, attrs)
		m.duration.Record(ctx, time.Since(began).Seconds(), attrs)
	}
}

func outcomeOf(a answer, ruled ruling, err error) string {
	switch {
	case a == answerDone:
		return "done"
	case a == answerRepeat:
		return "repeat"
	case a == answerLater:
		return "later"
	case a == answerContention && ruled.excused:
		return "contention"
	case ruled.excused:
		return "outage"
	default:
		return string(classOf(a, err))
	}
}

func (m *telemetry) buried(t *task, class Class) {
	m.deadLetters.Add(context.Background(), 1, metric.WithAttributes(
		attribute.String("handler", t.handler.name), attribute.String("topic", t.d.topic), attribute.String("class", string(class))))
}

func (m *telemetry) resubscribed(topic string) {
	m.resubscribes.Add(context.Background(), 1, metric.WithAttributes(attribute.String("topic", topic)))
}

func (m *telemetry) outage(h *handler, n int64) {
	m.outages.Add(context.Background(), n, of(h))
}

func (m *telemetry) waits(h *handler, n int64) {
	m.waiting.Add(context.Background(), n, of(h))
}

func of(h *handler) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("handler", h.name), attribute.String("topic", h.topic))
}
