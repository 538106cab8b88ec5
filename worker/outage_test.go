package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/firstcome/firstcome/worker"
)

// errRefused is what a dead server's port answers.
var errRefused = fmt.Errorf("dial: %w", syscall.ECONNREFUSED)

var errMarked = errors.New("payment provider: 503")

// sqlState is an error of PostgreSQL as pgx types it.
type sqlState string

func (s sqlState) Error() string    { return "SQLSTATE " + string(s) }
func (s sqlState) SQLState() string { return string(s) }

// site is a handler whose server can be away, and what it met.
type site struct {
	takes time.Duration // one attempt
	down  atomic.Pointer[error]

	mu       sync.Mutex
	began    []time.Time // attempts
	finished []time.Time
	running  int
	most     int // at once
	attempts map[string]int
}

func (s *site) handle(ctx context.Context, e worker.Event[order]) error {
	s.mu.Lock()
	s.began = append(s.began, time.Now())
	s.running++
	s.most = max(s.most, s.running)
	if s.attempts == nil {
		s.attempts = map[string]int{}
	}
	s.attempts[e.ID] = max(s.attempts[e.ID], e.Attempt)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
	}()
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.down.Load(); err != nil {
		return *err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = append(s.finished, time.Now())
	return nil
}

func (s *site) fail(err error) {
	if err == nil {
		s.down.Store(nil)
		return
	}
	s.down.Store(&err)
}

// since returns how many attempts began from then on.
func (s *site) since(then time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.began {
		if !b.Before(then) {
			n++
		}
	}
	return n
}

// counts returns the events finished and the most attempts at once since the last call.
func (s *site) counts() (finished, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most, s.most = s.most, 0
	return len(s.finished), most
}

func (b *bench) sendKeys(from, to int) {
	for n := from; n < to; n++ {
		b.broker.send(event(strconv.Itoa(n), "k"+strconv.Itoa(n), n))
	}
}

func TestOutage_OfManyKeys_OneProbesForAll_AndAllGoOnSoonAfterIt(t *testing.T) {
	const keys = 1000
	for name, err := range map[string]error{
		"Recognised": errRefused, "Marked": worker.Unavailable(errMarked), "UnknownButOfAllKeys": errBroken,
	} {
		for _, lasts := range []time.Duration{80 * time.Second, 14 * time.Minute} {
			t.Run(name+"_"+lasts.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					// The first two of unknown errors count: what they say is not
					// known to be an outage until a third key has met it.
					b := newBench(t, worker.Options{MaxAttempts: 3})
					s := &site{takes: 10 * time.Millisecond}
					must(t, worker.Handle(b.Worker, "h", topic, s.handle))
					s.fail(err)
					b.start(t)
					b.sendKeys(0, keys)
					time.Sleep(5 * time.Second)
					s.counts()
					settled := time.Now()
					time.Sleep(lasts - 5*time.Second)
					probes := s.since(settled)
					if _, most := s.counts(); most != 1 {
						t.Errorf("%d attempts at once in the outage, want 1", most)
					}
					if least, longest := int(lasts/time.Second)/4, int(lasts/time.Second)+3; probes < least || probes > longest {
						t.Errorf("%d attempts in %v of outage, want %d to %d", probes, lasts, least, longest)
					}
					s.fail(nil)
					time.Sleep(5 * time.Second)
					finished, _ := s.counts()
					if finished != keys || len(b.letters.get()) != 0 || len(b.broker.ackedIDs()) != keys {
						t.Errorf("5 s after the outage %d of %d are finished, %d dead letters, %d acknowledged",
							finished, keys, len(b.letters.get()), len(b.broker.ackedIDs()))
					}
					for id, attempt := range s.attempts {
						if attempt > 2 || attempt > 1 && !errors.Is(err, errBroken) {
							t.Errorf("event %s counted %d attempts", id, attempt)
						}
					}
					must(t, b.stop())
					lines := b.logged.String()
					if strings.Count(lines, "worker: outage;") != 1 || strings.Count(lines, "the outage is over") != 1 {
						t.Errorf("want one line at its begin and one at its end:\n%s", lines)
					}
					if n := strings.Count(lines, "\n"); n > 4 {
						t.Errorf("%d lines for one outage:\n%s", n, lines)
					}
				})
			})
		}
	}
}

func TestOutage_AServerThatIsBackMeetsFewAttemptsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{Concurrency: 64})
		s := &site{takes: 100 * time.Millisecond}
		must(t, worker.Handle(b.Worker, "h", topic, s.handle))
		s.fail(errRefused)
		b.start(t)
		b.sendKeys(0, 500)
		time.Sleep(time.Minute)
		s.fail(nil)
		s.counts()
		most := 0
		for finished := 0; finished < 500; {
			time.Sleep(50 * time.Millisecond)
			n, m := s.counts()
			if most = max(most, m); m > n+1 {
				t.Fatalf("%d attempts at once when %d had been finished", m, n)
			}
			finished = n
		}
		if most < 32 {
			t.Errorf("never more than %d at once", most)
		}
	})
}

// A cluster's node is away: a third of the keys fail. The others run as if
// nothing were.
func TestOutage_OfSomeKeys_HoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{MaxInFlight: 10_000, MaxAttempts: 2})
		var down atomic.Bool
		down.Store(true)
		var late, done atomic.Int64
		sent := make([]time.Time, 4000)
		must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
			time.Sleep(5 * time.Millisecond)
			if e.Payload.N%3 == 0 && down.Load() {
				return errRefused
			}
			if done.Add(1); e.Payload.N%3 != 0 && time.Since(sent[e.Payload.N]) > 500*time.Millisecond {
				late.Add(1)
			}
			return nil
		}))
		b.start(t)
		for n := range sent { // 100/s for 40 s
			sent[n] = time.Now()
			b.broker.send(event(strconv.Itoa(n), "k"+strconv.Itoa(n), n))
			time.Sleep(10 * time.Millisecond)
		}
		if late.Load() > 0 {
			t.Errorf("%d healthy events took more than half a second", late.Load())
		}
		down.Store(false)
		time.Sleep(15 * time.Second) // the longest wait of a single key is 10 s
		if n := done.Load(); n != 4000 || len(b.letters.get()) > 0 {
			t.Errorf("%d of 4000 finished, dead letters %d", n, len(b.letters.get()))
		}
	})
}

func TestOutage_OfOneHandler_HoldsNoPlaceOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{Concurrency: 4, Timeout: 30 * time.Second})
		silent := &site{takes: time.Hour} // each attempt hangs until its time is up
		healthy := &site{takes: 10 * time.Millisecond}
		must(t, worker.Handle(b.Worker, "silent", topic, silent.handle))
		must(t, worker.Handle(b.Worker, "healthy", topic, healthy.handle))
		b.start(t)
		b.sendKeys(0, 100)
		time.Sleep(2 * time.Minute) // the first attempts have hung
		began := time.Now()
		b.sendKeys(100, 300)
		for n := 0; n < 300; n, _ = healthy.counts() {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the healthy handler took %v beside one that hangs", took)
		}
		if _, most := silent.counts(); most > 4 {
			t.Errorf("%d at once", most)
		}
	})
}

func TestOutage_AStopInItIsPrompt_AndGivesNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{})
		s := &site{}
		must(t, worker.Handle(b.Worker, "h", topic, s.handle))
		s.fail(errRefused)
		b.start(t)
		b.sendKeys(0, 300)
		time.Sleep(time.Minute)
		began := time.Now()
		must(t, b.stop())
		if took := time.Since(began); took > 0 {
			t.Errorf("the stop took %v", took)
		}
		if len(b.broker.ackedIDs()) > 0 || len(b.letters.get()) > 0 {
			t.Errorf("acknowledged %v, dead letters %v", b.broker.ackedIDs(), b.letters.get())
		}
	})
}

func TestOutage_WhatTheSubscriberTakesBackInIt_LeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{})
		s := &site{}
		must(t, worker.Handle(b.Worker, "h", topic, s.handle))
		s.fail(errRefused)
		b.start(t)
		b.sendKeys(0, 300)
		time.Sleep(time.Minute)
		b.broker.end() // their contexts end, and the subscription with them
		time.Sleep(10 * time.Second)
		s.fail(nil)
		b.sendKeys(0, 300) // delivered again
		time.Sleep(5 * time.Second)
		if n, _ := s.counts(); n != 300 || len(b.broker.ackedIDs()) != 300 {
			t.Errorf("%d runs were finished, %d acknowledged, want 300", n, len(b.broker.ackedIDs()))
		}
	})
}

// A probe has its turn but no place among the running handlers yet, when its
// message is taken back: the next one probes.
func TestOutage_AProbeThatIsTakenBack_GivesItsTurnOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{Concurrency: 1, Timeout: time.Hour})
		s := &site{}
		must(t, worker.Handle(b.Worker, "h", topic, s.handle))
		busy := make(chan time.Duration, 1)
		must(t, worker.Handle(b.Worker, "slow", topic, func(context.Context, worker.Event[order]) error {
			select {
			case d := <-busy:
				time.Sleep(d)
			default:
			}
			return nil
		}))
		s.fail(errRefused)
		b.start(t)
		b.sendKeys(0, 10)
		time.Sleep(time.Minute)
		busy <- time.Minute
		b.broker.send(event("slow", "slow", 1))
		time.Sleep(30 * time.Second) // the next probe is due and waits for a place
		b.broker.end()
		time.Sleep(time.Minute)
		s.fail(nil)
		b.sendKeys(0, 10)
		time.Sleep(5 * time.Second)
		if n := len(b.broker.ackedIDs()); n != 10 {
			t.Errorf("%d of 10 acknowledged", n)
		}
	})
}

// A handler that asks for each event again a few times, before it finishes one,
// does so at once with all when the outage is over.
func TestOutage_IsOverForAHandlerThatAsksForLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{})
		s := &site{takes: 200 * time.Millisecond}
		var mu sync.Mutex
		asked := map[string]int{}
		must(t, worker.Handle(b.Worker, "h", topic, func(ctx context.Context, e worker.Event[order]) error {
			if s.down.Load() == nil {
				mu.Lock()
				asked[e.ID]++
				n := asked[e.ID]
				mu.Unlock()
				if n <= 5 {
					time.Sleep(s.takes)
					return worker.Later(time.Second)
				}
			}
			return s.handle(ctx, e)
		}))
		s.fail(errRefused)
		b.start(t)
		b.sendKeys(0, 300)
		time.Sleep(80 * time.Second)
		s.fail(nil)
		time.Sleep(30 * time.Second)
		if n, _ := s.counts(); n != 300 {
			t.Errorf("%d of 300 are finished", n)
		}
	})
}

// An attempt that never ends holds up its own key and no other, whether it was
// there before the outage or is itself a probe.
func TestOutage_AnAttemptThatIgnoresItsTime_HoldsUpItsOwnKeyAlone(t *testing.T) {
	for name, hangs := range map[string]time.Duration{"BeforeIt": 0, "AsAProbe": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, worker.Options{Timeout: 10 * time.Second})
				s := &site{}
				hang, wake := make(chan struct{}), make(chan struct{})
				must(t, worker.Handle(b.Worker, "h", topic, func(ctx context.Context, e worker.Event[order]) error {
					select {
					case <-hang: // one attempt
						<-wake
					default:
					}
					return s.handle(ctx, e)
				}))
				s.fail(errRefused)
				b.start(t)
				go func() {
					time.Sleep(hangs)
					hang <- struct{}{}
				}()
				synctest.Wait()
				b.sendKeys(0, 50)
				time.Sleep(2 * time.Minute)
				s.fail(nil)
				time.Sleep(30 * time.Second)
				if n, _ := s.counts(); n != 49 {
					t.Errorf("%d of the other 49 are finished", n)
				}
				close(wake)
				time.Sleep(time.Minute)
				if n := len(b.broker.ackedIDs()); n != 50 {
					t.Errorf("%d of 50 are finished", n)
				}
			})
		})
	}
}

func TestOutage_OfTheInbox_IsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{MaxAttempts: 2})
		s := &site{}
		must(t, worker.Handle(b.Worker, "h", topic, s.handle))
		b.inbox.setFail(errBroken)
		b.start(t)
		b.sendKeys(0, 500)
		time.Sleep(time.Hour)
		b.inbox.setFail(nil)
		time.Sleep(5 * time.Second)
		if n, _ := s.counts(); n != 500 || len(b.letters.get()) > 0 {
			t.Errorf("%d of 500 finished, dead letters %v", n, b.letters.get())
		}
		must(t, b.stop())
		if lines := b.logged.String(); strings.Count(lines, "\n") != 2 {
			t.Errorf("want two lines:\n%s", lines)
		}
	})
}

func TestContention_IsTriedAgainAtOnce_CountsNothing_AndDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{MaxAttempts: 2})
		began := time.Now()
		tries := map[string]int{}
		must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
			tries[e.ID]++
			if e.Attempt != 1 {
				t.Errorf("attempt %d, want 1", e.Attempt)
			}
			if e.ID == "short" && tries[e.ID] <= 3 || e.ID == "passing" && tries[e.ID] <= 8 || e.ID == "long" && time.Since(began) < 10*time.Second {
				return fmt.Errorf("update: %w", sqlState("40001"))
			}
			return nil
		}))
		b.start(t)
		b.broker.send(event("short", "k", 1))
		synctest.Wait()
		if took := time.Since(began); took > 0 || len(b.broker.ackedIDs()) != 1 {
			t.Errorf("after %v %v are acknowledged: not at once", took, b.broker.ackedIDs())
		}
		b.broker.send(event("passing", "k", 1))
		synctest.Wait()
		if n := len(b.broker.ackedIDs()); n != 1 {
			t.Error("the eighth try came without a pause")
		}
		time.Sleep(500 * time.Millisecond)
		equalStrings(t, "acknowledged", b.broker.ackedIDs(), "passing", "short")
		b.broker.send(event("long", "k", 1))
		time.Sleep(25 * time.Second)
		equalStrings(t, "acknowledged", b.broker.ackedIDs(), "long", "passing", "short")
		if n := tries["long"]; n < 8 || n > 40 || len(b.letters.get()) > 0 {
			t.Errorf("%d tries in 10 s of contention, dead letters %v", n, b.letters.get())
		}
		must(t, b.stop())
	})
}

// gauges are the sums of what a provider holds, by name and, for attempts, outcome.
func gauges(t *testing.T, reader *sdkmetric.ManualReader) map[string]int64 {
	t.Helper()
	var got metricdata.ResourceMetrics
	must(t, reader.Collect(context.Background(), &got))
	values := map[string]int64{}
	for _, scope := range got.ScopeMetrics {
		for _, m := range scope.Metrics {
			data, isSum := m.Data.(metricdata.Sum[int64])
			if !isSum {
				continue
			}
			for _, p := range data.DataPoints {
				name := strings.TrimPrefix(m.Name, "firstcome.worker.")
				if outcome, ok := p.Attributes.Value("outcome"); ok {
					name += " " + outcome.AsString()
				}
				values[name] += p.Value
			}
		}
	}
	return values
}

func TestTelemetry_TellsAnOutageAndItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		b := newBench(t, worker.Options{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
		s := &site{}
		must(t, worker.Handle(b.Worker, "h", topic, s.handle))
		s.fail(errRefused)
		b.start(t)
		b.sendKeys(0, 10)
		b.broker.send(event("second", "k9", 9)) // of a key that waits: no other key
		time.Sleep(time.Minute)
		got := gauges(t, reader)
		if got["outage"] != 1 || got["waiting_keys"] != 10 || got["attempts outage"] < 30 || got["in_flight"] != 11 {
			t.Errorf("in the outage: %v", got)
		}
		s.fail(sqlState("40P01"))
		time.Sleep(10 * time.Second)
		s.fail(nil)
		time.Sleep(5 * time.Second)
		got = gauges(t, reader)
		if got["outage"] != 0 || got["waiting_keys"] != 0 || got["attempts done"] != 11 || got["attempts contention"] == 0 || got["in_flight"] != 0 {
			t.Errorf("after it: %v", got)
		}
		s.fail(errRefused)
		b.sendKeys(20, 30)
		time.Sleep(time.Minute)
		must(t, b.stop())
		if got = gauges(t, reader); got["outage"] != 0 || got["waiting_keys"] != 0 || got["in_flight"] != 0 {
			t.Errorf("after a stop in another: %v", got)
		}
	})
}
