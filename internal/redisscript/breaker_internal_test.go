package redisscript

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// patient is a breaker, its log and what its probes meet.
type patient struct {
	t *testing.T
	breaker
	log    bytes.Buffer
	logger *slog.Logger

	mu     sync.Mutex
	asked  int
	answer func(ctx context.Context) error
}

var errGone = errors.New("gone")

func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{t: t, answer: func(context.Context) error { return errGone }}
	p.logger = slog.New(slog.NewTextHandler(&p.log, nil))
	p.init("test")
	return p
}

func (p *patient) probe(ctx context.Context) error {
	p.mu.Lock()
	p.asked++
	answer := p.answer
	p.mu.Unlock()
	return answer(ctx)
}

func (p *patient) becomes(answer func(ctx context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.answer = 0, answer
}

func (p *patient) probes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *patient) fail(n int) {
	left := time.Now()
	time.Sleep(time.Microsecond)
	for range n {
		p.failed(left, errGone, p.logger, p.probe)
	}
}

func (p *patient) refuses(want bool) {
	p.t.Helper()
	if err := p.refuse(); (err != nil) != want || want && (!errors.Is(err, ErrAway) || !errors.Is(err, errGone)) {
		p.t.Errorf("it refuses with %v, want refusal %v", err, want)
	}
}

func bubble(t *testing.T, f func(p *patient)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newPatient(t)) })
}

func TestThreeFailuresInARowOpenTheBreakerAndOneAnswerClosesIt(t *testing.T) {
	bubble(t, func(p *patient) {
		p.fail(2)
		p.refuses(false)
		p.fail(1)
		p.refuses(true)
		p.answered(time.Now())
		p.refuses(false)
		p.fail(2)
		p.refuses(false)
		if text := p.log.String(); strings.Count(text, "\n") != 2 || strings.Count(text, "does not answer") != 1 || strings.Count(text, "answers again") != 1 {
			t.Errorf("the log is %q, want a line at the opening and one at the closing", text)
		}
	})
}

func TestAFailureThatLeftBeforeTheLastAnswerCameDoesNotCount(t *testing.T) {
	bubble(t, func(p *patient) {
		left := time.Now()
		time.Sleep(time.Second)
		p.answered(time.Now())
		time.Sleep(time.Second)
		for range 10 { // as many dead connections, noticed late
			p.failed(left, errGone, p.logger, p.probe)
		}
		p.refuses(false)
		if p.spell.Load() != nil {
			t.Error("it probes")
		}
	})
}

func TestAProbeFindsTheServerBackWithinASecondAndAHalf(t *testing.T) {
	bubble(t, func(p *patient) {
		p.fail(3)
		for range 100 { // calls keep coming
			time.Sleep(100 * time.Millisecond)
			p.refuses(true)
		}
		p.becomes(func(context.Context) error { return nil })
		time.Sleep(1500 * time.Millisecond)
		p.refuses(false)
	})
}

func TestProbesAreFewAndBoundedAlsoWhereNothingComesBack(t *testing.T) {
	bubble(t, func(p *patient) {
		out, most := 0, 0
		p.becomes(func(ctx context.Context) error {
			p.mu.Lock()
			out++
			most = max(most, out)
			p.mu.Unlock()
			<-ctx.Done()
			time.Sleep(5 * time.Second) // the client does not obey
			p.mu.Lock()
			out--
			p.mu.Unlock()
			return errGone
		})
		p.fail(3)
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			p.refuses(true)
		}
		p.mu.Lock()
		if most > mostProbes || p.asked > 120 {
			t.Errorf("%d probes in a minute, %d of them at once", p.asked, most)
		}
		p.mu.Unlock()
		p.becomes(func(context.Context) error { return nil })
		time.Sleep(10 * time.Second)
		p.refuses(false)
	})
}

func TestNobodyProbesForCallsThatDoNotComeAndTheNextCallIsTheProbe(t *testing.T) {
	bubble(t, func(p *patient) {
		p.fail(3)
		time.Sleep(time.Minute)
		before := p.probes()
		time.Sleep(time.Hour)
		if n := p.probes() - before; n != 0 {
			t.Errorf("%d probes in an hour without a call", n)
		}
		p.refuses(false) // the first call after the outage is sent
		p.fail(1)        // it is none
		p.refuses(true)
		p.becomes(func(context.Context) error { return nil })
		time.Sleep(time.Second)
		p.refuses(false)
	})
}

// metered reads what this process counts. Only the first provider is obeyed.
var metered = sync.OnceValue(func() *sdkmetric.ManualReader {
	reader := sdkmetric.NewManualReader()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	return reader
})

func TestAServerThatNobodyAsksForIsCountedAsAwayNoLonger(t *testing.T) {
	reader := metered()
	count := func() (n int64) {
		var all metricdata.ResourceMetrics
		if err := reader.Collect(context.Background(), &all); err != nil {
			t.Fatal(err)
		}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "firstcome.redis.away" && len(sum.DataPoints) > 0 {
					n += sum.DataPoints[0].Value
				}
			}
		}
		return n
	}
	before := count()
	bubble(t, func(p *patient) {
		want := func(what string, n int64) {
			t.Helper()
			if got := count() - before; got != n {
				t.Errorf("%s: %d servers are away, want %d", what, got, n)
			}
		}
		p.fail(3)
		want("after three failures", 1)
		time.Sleep(time.Minute) // its slots have gone elsewhere, or its client is closed
		want("nobody asks", 0)
		p.fail(1)
		want("somebody asks again", 1)
		time.Sleep(time.Minute)
		want("nobody asks again", 0)
		p.answered(time.Now())
		want("it answers", 0)
	})
}
