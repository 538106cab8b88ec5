package worker_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
	"pgregory.net/rapid"

	"github.com/firstcome/firstcome/worker"
)

type forgetful struct{ *memInbox }

func (forgetful) Retention() time.Duration { return 24 * time.Hour }

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	sub, dead := &broker{}, &letters{}
	for _, c := range []struct {
		name string
		new  func() (*worker.Worker, error)
		want string
	}{
		{"NoSubscriber", func() (*worker.Worker, error) { return worker.New(nil, nil, dead, nil) }, "subscriber"},
		{"NoDeadLetter", func() (*worker.Worker, error) { return worker.New(sub, nil, nil, nil) }, "deadLetter"},
		{"NegativeTimeout", func() (*worker.Worker, error) {
			return worker.New(sub, nil, dead, &worker.Options{Timeout: -1})
		}, "Options.Timeout"},
		{"InboxThatForgetsBeforeTheBroker", func() (*worker.Worker, error) {
			return worker.New(sub, forgetful{newInbox()}, dead, nil)
		}, "ReplayWindow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := c.new(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that names %s", err, c.want)
			}
		})
	}
	if _, err := worker.New(sub, forgetful{newInbox()}, dead, &worker.Options{ReplayWindow: time.Hour}); err != nil {
		t.Errorf("a shorter window was refused: %v", err)
	}
}

func TestHandle_RefusesWhatCannotWork(t *testing.T) {
	w, err := worker.New(&broker{}, newInbox(), &letters{}, nil)
	must(t, err)
	fn := func(context.Context, worker.Event[order]) error { return nil }
	must(t, worker.Handle(w, "h", topic, fn))
	for name, err := range map[string]error{
		"NameTaken":      worker.Handle(w, "h", "other", fn),
		"NameEmpty":      worker.Handle(w, "", topic, fn),
		"NameWithSpaces": worker.Handle(w, "a b", topic, fn),
		"NameTooLong":    worker.Handle(w, strings.Repeat("n", 101), topic, fn),
		"TopicEmpty":     worker.Handle(w, "h2", "", fn),
		"FunctionNil":    worker.Handle[order](w, "h3", topic, nil),
		"TxWithoutTxInbox": worker.HandleTx(w, "h4", topic, func(context.Context, *sql.Tx, worker.Event[order]) error {
			return nil
		}),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	empty, err := worker.New(&broker{}, newInbox(), &letters{}, nil)
	must(t, err)
	if err := empty.Run(t.Context()); err == nil {
		t.Error("a worker without handlers ran")
	}
}

func TestExponential_StaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "first"))
		limit := time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "cap"))
		attempt := rapid.IntRange(1, 10_000).Draw(t, "attempt")
		retry := worker.Exponential(first, limit)
		whole := limit // what doubling gives, reckoned in floating point
		if f := float64(first) * pow2(attempt-1); f < float64(limit) {
			whole = time.Duration(f)
		}
		got := retry(attempt)
		if got < 0 || got > limit || got < whole/2-1 || got > whole+1 {
			t.Fatalf("attempt %d: %v, want %v to %v", attempt, got, whole/2, whole)
		}
	})
}

func pow2(n int) float64 {
	f := 1.0
	for range min(n, 200) {
		f *= 2
	}
	return f
}

// tracer notes the links of the spans that are begun.
type tracer struct {
	embedded.TracerProvider
	links *[]trace.Link
}

func (t tracer) Tracer(string, ...trace.TracerOption) trace.Tracer { return spanTracer{links: t.links} }

type spanTracer struct {
	embedded.Tracer
	links *[]trace.Link
}

func (t spanTracer) Start(ctx context.Context, _ string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	config := trace.NewSpanStartConfig(opts...)
	*t.links = append(*t.links, config.Links()...)
	return ctx, noop.Span{}
}

func TestTrace_IsLinkedToTheSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var links []trace.Link
		b := newBench(t, worker.Options{TracerProvider: tracer{links: &links}})
		must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error { return nil }))
		b.start(t)
		m := event("1", "k", 1)
		m.Metadata.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		m.Metadata.Set("tracestate", "a=b")
		b.broker.send(m, event("2", "k", 2))
		synctest.Wait()
		must(t, b.stop())
		if len(links) != 1 || links[0].SpanContext.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" ||
			links[0].SpanContext.TraceState().String() != "a=b" {
			t.Errorf("links: %+v", links)
		}
	})
}
