package sqloutbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/outboxtest"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
)

func relayWith(t *testing.T, store outbox.Store, pub message.Publisher, attempts int) {
	t.Helper()
	relay, err := outbox.NewRelay(store, pub, []string{"orders"}, &outbox.Options{MaxAttempts: attempts,
		Backoff: func(int) time.Duration { return time.Millisecond }, PollInterval: 20 * time.Millisecond, Logger: quiet})
	ok(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		ok(t, <-done)
	})
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("after half a minute not: %s", what)
}

func TestSQLite_ABusyWriterAndTheRelayBothGetTheirTurn(t *testing.T) {
	db := sqliteDB(t)
	store := newStore(t, db, "sqlite")
	rec := outboxtest.NewRecorder(nil)
	startRelay(t, store, rec)
	const writers, each = 4, 100
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				x, err := db.Begin()
				if err == nil {
					err = store.Add(t.Context(), x, outboxtest.Msg(fmt.Sprintf("w%d", w), i))
				}
				if err == nil {
					err = x.Commit()
				}
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	wg.Wait()
	outboxtest.InOrder(t, rec.Wait(t, outboxtest.AtLeast(writers*each)))
	until(t, "all settled", func() bool {
		st, err := store.Stats(t.Context())
		return err == nil && st.Pending == 0
	})
	var busy, log, done int
	ok(t, db.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done))
	if busy != 0 {
		t.Error("the relay keeps the log from being checkpointed")
	}
}

func TestSQLite_OneConnectionIsEnough(t *testing.T) {
	db := sqliteDB(t)
	db.SetMaxOpenConns(1)
	store := newStore(t, db, "sqlite")
	rec := outboxtest.NewRecorder(nil)
	startRelay(t, store, rec)
	for i := range 50 {
		x, err := db.Begin()
		ok(t, err)
		ok(t, store.Add(t.Context(), x, outboxtest.Msg("k", i)))
		ok(t, x.Commit())
	}
	outboxtest.InOrder(t, rec.Wait(t, outboxtest.AtLeast(50)))
}

func TestAdd_TheTraceOfTheRequestReachesTheWireAndIsLinked(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	t.Cleanup(func() { otel.SetTracerProvider(before) })

	db := sqliteDB(t)
	store := newStore(t, db, "sqlite")
	ctx, request := provider.Tracer("test").Start(t.Context(), "POST /orders")
	x, err := db.Begin()
	ok(t, err)
	ok(t, store.Add(ctx, x, outboxtest.Msg("k", 0)))
	ok(t, x.Commit())
	request.End()

	rec := outboxtest.NewRecorder(nil)
	startRelay(t, store, rec)
	sent := rec.Wait(t, outboxtest.AtLeast(1))
	id := request.SpanContext()
	if got, want := sent[0].Metadata[outbox.MetadataTrace], fmt.Sprintf("00-%s-%s-01", id.TraceID(), id.SpanID()); got != want {
		t.Errorf("traceparent %q, want %q", got, want)
	}
	until(t, "span ended", func() bool { return len(exporter.GetSpans()) == 2 })
	span := exporter.GetSpans()[1]
	if len(span.Links) != 1 || span.Links[0].SpanContext.SpanID() != id.SpanID() {
		t.Errorf("the relay's span is not linked to the request: %+v", span.Links)
	}
}

func TestAdd_ManyMessagesGoInFewStatementsAndKeepTheirOrder(t *testing.T) {
	db := sqliteDB(t)
	store := newStore(t, db, "sqlite")
	var msgs []outbox.Message
	for i := range 1201 {
		msgs = append(msgs, outboxtest.Msg("k", i))
	}
	x, err := db.Begin()
	ok(t, err)
	counter := &statements{Executor: x}
	ok(t, store.Add(t.Context(), counter, msgs...))
	ok(t, x.Commit())
	if counter.n != 3 {
		t.Errorf("%d statements for %d messages", counter.n, len(msgs))
	}
	rec := outboxtest.NewRecorder(nil)
	startRelay(t, store, rec)
	outboxtest.InOrder(t, rec.Wait(t, outboxtest.AtLeast(len(msgs))))
}

// statements counts them.
type statements struct {
	sqloutbox.Executor
	n int
}

func (s *statements) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	s.n++
	return s.Executor.ExecContext(ctx, query, args...)
}
