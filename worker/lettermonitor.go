package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// LetterMonitor shows how many dead letters there are, and the age of the
// oldest, as the gauges firstcome.worker.letters and firstcome.worker.letters.age
// by source, topic, handler, class and state.
type LetterMonitor struct {
	letters LetterOperator
	source  string
	opts    LetterMonitorOptions

	mu    sync.Mutex
	stats []LetterStats
	at    time.Time
}

// LetterMonitorOptions of a [LetterMonitor]. The zero value, and nil, are the
// documented defaults.
type LetterMonitorOptions struct {
	// Every is the pause between two readings of the store, so that a scrape
	// costs it nothing. Default 15 s.
	Every time.Duration
	// Logger receives which readings failed. Default slog.Default().
	Logger *slog.Logger
	// MeterProvider defaults to OpenTelemetry's global one.
	MeterProvider metric.MeterProvider
}

// NewLetterMonitor registers the gauges. The source tells several monitors
// apart, "worker" and "outbox" say.
func NewLetterMonitor(letters LetterOperator, source string, opts *LetterMonitorOptions) (*LetterMonitor, error) {
	m := &LetterMonitor{letters: letters, source: source}
	if opts != nil {
		m.opts = *opts
	}
	setDefault(&m.opts.Every, 15*time.Second)
	switch {
	case letters == nil:
		return nil, errors.New("worker: letters is nil")
	case source == "":
		return nil, errors.New("worker: source is empty")
	case m.opts.Every < 0:
		return nil, fmt.Errorf("worker: LetterMonitorOptions.Every is %v: must be positive", m.opts.Every)
	}
	if m.opts.Logger == nil {
		m.opts.Logger = slog.Default()
	}
	if m.opts.MeterProvider == nil {
		m.opts.MeterProvider = otel.GetMeterProvider()
	}
	return m, m.register()
}

func (m *LetterMonitor) register() error {
	meter := m.opts.MeterProvider.Meter(scope)
	count, err := meter.Int64ObservableGauge("firstcome.worker.letters",
		metric.WithDescription("Dead letters in their store by state: dead, requeued, dropped."))
	if err != nil {
		return fmt.Errorf("worker: instruments: %w", err)
	}
	age, err := meter.Float64ObservableGauge("firstcome.worker.letters.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest dead letter; tombstones have none."))
	if err != nil {
		return fmt.Errorf("worker: instruments: %w", err)
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, s := range m.stats {
			attrs := metric.WithAttributes(attribute.String("source", m.source), attribute.String("topic", s.Topic),
				attribute.String("handler", s.Handler), attribute.String("class", string(s.Class)), attribute.String("state", string(s.State)))
			o.ObserveInt64(count, s.Count, attrs)
			if s.State != LetterDropped {
				o.ObserveFloat64(age, (s.Oldest + time.Since(m.at)).Seconds(), attrs)
			}
		}
		return nil
	}, count, age)
	if err != nil {
		return fmt.Errorf("worker: instruments: %w", err)
	}
	return nil
}

// Run reads the store until ctx ends; it then returns nil. While a reading fails
// the gauges show nothing.
func (m *LetterMonitor) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.opts.Every)
	defer ticker.Stop()
	for {
		m.read(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (m *LetterMonitor) read(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, letterTime)
	defer cancel()
	stats, err := m.letters.LetterStats(bounded)
	if err != nil {
		stats = nil
		if ctx.Err() == nil {
			m.opts.Logger.WarnContext(ctx, "worker: dead letters not counted, trying again later", "source", m.source, "err", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats, m.at = stats, time.Now()
}
