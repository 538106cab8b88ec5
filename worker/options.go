package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Options of a [Worker]. The zero value, and nil, are the documented defaults.
type Options struct {
	// Concurrency is how many handlers run at once. Default 32.
	Concurrency int
	// MaxInFlight bounds the events received and not yet finished, waiting ones
	// included. Default 1,000.
	MaxInFlight int
	// MaxBytesInFlight bounds their payload and metadata in bytes. A single
	// larger event is taken alone. Default 64 MiB.
	MaxBytesInFlight int64

	// Timeout ends the context of one attempt. The next attempt, and the next
	// event of the key, still wait for the handler to return. Default 30 s.
	Timeout time.Duration
	// MaxAttempts is how many failed attempts make a dead letter; an outage is no
	// failure. Default 10.
	MaxAttempts int
	// Retry is the delay after a failed attempt. Default
	// Exponential(100 ms, 1 min), some 50 s over 10 attempts.
	Retry Retry
	// OutagePatience is how long after an event's first failure in an outage its
	// failures begin to count after all, and make a dead letter of
	// [ClassUnavailable] by and by: where the handler has finished 20 other events
	// meanwhile, so that the outage is the event's own. Where it is no error of an
	// outage that all of the handler's keys meet, the time alone decides.
	// Default 15 min.
	OutagePatience time.Duration
	// OutageLimit is the same for an outage in which the handler finishes no other
	// events. Default ReplayWindow: by then the broker forgets the event, and a
	// dead letter keeps it. At least OutagePatience.
	OutageLimit time.Duration
	// Grace is how long a stop lets handlers run before it cancels their
	// context. Default 30 s.
	Grace time.Duration

	// Decode turns a payload into the handler's type; into is a pointer to it.
	// An error makes a dead letter. Default json.Unmarshal.
	Decode func(payload []byte, into any) error

	// ReplayWindow is how old an event may be that the broker still delivers:
	// the retention of the topic. [New] refuses an inbox that forgets sooner,
	// since a repeat would then take effect again. Default 7 days, which is
	// Kafka's.
	ReplayWindow time.Duration

	// LetterPoll is how often, at most, the worker looks for dead letters that
	// another process has requeued in its [LetterStore]. Default 5 s.
	LetterPoll time.Duration

	// Logger receives what an operator should know: no payloads and no keys.
	// Default slog.Default().
	Logger *slog.Logger
	// MeterProvider and TracerProvider default to OpenTelemetry's global ones,
	// which do nothing unless set.
	MeterProvider  metric.MeterProvider
	TracerProvider trace.TracerProvider
}

// markTimeout bounds the inbox's mark after a handler without a transaction.
const markTimeout = 10 * time.Second

func (o *Options) withDefaults() Options {
	out := Options{}
	if o != nil {
		out = *o
	}
	setDefault(&out.Concurrency, 32)
	setDefault(&out.MaxInFlight, 1000)
	setDefault(&out.MaxBytesInFlight, 64<<20)
	setDefault(&out.Timeout, 30*time.Second)
	setDefault(&out.MaxAttempts, 10)
	setDefault(&out.OutagePatience, 15*time.Minute)
	setDefault(&out.Grace, 30*time.Second)
	setDefault(&out.ReplayWindow, 7*24*time.Hour)
	setDefault(&out.OutageLimit, max(out.ReplayWindow, out.OutagePatience))
	setDefault(&out.LetterPoll, 5*time.Second)
	if out.Retry == nil {
		out.Retry = Exponential(100*time.Millisecond, time.Minute)
	}
	if out.Decode == nil {
		out.Decode = json.Unmarshal
	}
	if out.Logger == nil {
		out.Logger = slog.Default()
	}
	if out.MeterProvider == nil {
		out.MeterProvider = otel.GetMeterProvider()
	}
	if out.TracerProvider == nil {
		out.TracerProvider = otel.GetTracerProvider()
	}
	return out
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o *Options) validate() error {
	var errs []error
	refuse := func(bad bool, field string, value any) {
		if bad {
			errs = append(errs, fmt.Errorf("worker: Options.%s is %v: must be positive", field, value))
		}
	}
	refuse(o.Concurrency < 0, "Concurrency", o.Concurrency)
	refuse(o.MaxInFlight < 0, "MaxInFlight", o.MaxInFlight)
	refuse(o.MaxBytesInFlight < 0, "MaxBytesInFlight", o.MaxBytesInFlight)
	refuse(o.Timeout < 0, "Timeout", o.Timeout)
	refuse(o.MaxAttempts < 0, "MaxAttempts", o.MaxAttempts)
	refuse(o.OutagePatience < 0, "OutagePatience", o.OutagePatience)
	refuse(o.OutageLimit < 0, "OutageLimit", o.OutageLimit)
	if o.OutageLimit >= 0 && o.OutageLimit < o.OutagePatience {
		errs = append(errs, fmt.Errorf("worker: Options.OutageLimit is %v: must be at least OutagePatience, %v", o.OutageLimit, o.OutagePatience))
	}
	refuse(o.Grace < 0, "Grace", o.Grace)
	refuse(o.ReplayWindow < 0, "ReplayWindow", o.ReplayWindow)
	refuse(o.LetterPoll < 0, "LetterPoll", o.LetterPoll)
	return errors.Join(errs...)
}

// checkRetention refuses an inbox, or a dead letter store, that forgets an event
// while the broker may still repeat it.
func (o *Options) checkRetention(what string, memory any) error {
	r, ok := memory.(retainer)
	if !ok {
		return nil
	}
	if kept := r.Retention(); kept > 0 && kept < o.ReplayWindow {
		return fmt.Errorf("worker: the %s forgets after %v, but Options.ReplayWindow is %v: "+
			"an event repeated after that would take effect again", what, kept, o.ReplayWindow)
	}
	return nil
}
