package worker_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/worker"
)

func TestDrain(t *testing.T) {
	t.Run("HandlerWithinTheGrace_FinishesAndIsAcknowledged", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{Grace: 10 * time.Second})
			must(t, worker.Handle(b.Worker, "h", topic, func(ctx context.Context, _ worker.Event[order]) error {
				time.Sleep(2 * time.Second)
				return ctx.Err()
			}))
			b.start(t)
			b.broker.send(event("1", "k", 1))
			synctest.Wait()
			began := time.Now()
			must(t, b.stop())
			if took := time.Since(began); took != 2*time.Second {
				t.Errorf("the drain took %v, want the handler's 2 s", took)
			}
			equalStrings(t, "acknowledged", b.broker.ackedIDs(), "1")
		})
	})

	t.Run("AcknowledgementsOnTheirWay_AreWaitedFor", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			b.broker.ackTakes = 3 * time.Second
			must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error { return nil }))
			b.start(t)
			b.broker.send(event("1", "k", 1), event("2", "l", 1))
			synctest.Wait()
			began := time.Now()
			must(t, b.stop())
			if took := time.Since(began); took != 3*time.Second {
				t.Errorf("the drain took %v, want the acknowledgements' 3 s", took)
			}
			equalStrings(t, "acknowledged", b.broker.ackedIDs(), "1", "2")
		})
	})

	t.Run("HandlerPastTheGrace_IsCancelled_NotAcknowledged_NoDeadLetter", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{Grace: 10 * time.Second, Timeout: time.Hour, MaxAttempts: 1})
			must(t, worker.Handle(b.Worker, "h", topic, func(ctx context.Context, _ worker.Event[order]) error {
				<-ctx.Done()
				return ctx.Err()
			}))
			b.start(t)
			b.broker.send(event("1", "k", 1))
			synctest.Wait()
			began := time.Now()
			must(t, b.stop())
			if took := time.Since(began); took != 10*time.Second {
				t.Errorf("the drain took %v, want the grace of 10 s", took)
			}
			if ids, l := b.broker.ackedIDs(), b.letters.get(); len(ids)+len(l) > 0 {
				t.Errorf("acknowledged %v, dead letters %v; want none", ids, l)
			}
		})
	})

	t.Run("LastAttemptFailsDuringTheStop_MakesNoDeadLetter", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{MaxAttempts: 1})
			must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error {
				time.Sleep(time.Second)
				return worker.Stop(errBroken)
			}))
			b.start(t)
			b.broker.send(event("1", "k", 1))
			synctest.Wait()
			must(t, b.stop())
			if ids, l := b.broker.ackedIDs(), b.letters.get(); len(ids)+len(l) > 0 {
				t.Errorf("acknowledged %v, dead letters %v; want none", ids, l)
			}
		})
	})

	t.Run("WaitingEvents_AreLeftToTheNextProcess", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{Retry: func(int) time.Duration { return time.Hour }, Concurrency: 1})
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				did.add(e.ID)
				if e.ID == "A1" {
					return errBroken // backs off for an hour, with A2 behind it
				}
				time.Sleep(time.Second) // C1 waits for the place
				return nil
			}))
			b.start(t)
			b.broker.send(event("A1", "A", 1))
			synctest.Wait()
			b.broker.send(event("A2", "A", 2), event("B1", "B", 3))
			synctest.Wait()
			b.broker.send(event("C1", "C", 4))
			synctest.Wait()
			began := time.Now()
			must(t, b.stop())
			if took := time.Since(began); took != time.Second {
				t.Errorf("the drain took %v, want B1's second", took)
			}
			equalStrings(t, "ran", did.get(), "A1", "B1")
			equalStrings(t, "acknowledged", b.broker.ackedIDs(), "B1")
		})
	})

	t.Run("HandlerThatNeverReturns_IsReported", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{Grace: time.Second})
			release := make(chan struct{})
			must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error {
				<-release
				return nil
			}))
			b.start(t)
			b.broker.send(event("1", "k", 1))
			synctest.Wait()
			if err := b.stop(); !errors.Is(err, worker.ErrStillRunning) {
				t.Errorf("got %v, want ErrStillRunning", err)
			}
			close(release)
		})
	})

	t.Run("Ready_IsFalseFirst", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error {
				time.Sleep(time.Minute / 4)
				return nil
			}))
			if b.Ready() {
				t.Error("ready before Run")
			}
			b.start(t)
			if !b.Ready() {
				t.Error("not ready while subscribed")
			}
			b.broker.send(event("1", "k", 1))
			synctest.Wait()
			b.cancel()
			synctest.Wait()
			if b.Ready() {
				t.Error("ready while a stop waits for its handlers")
			}
		})
	})

	t.Run("RunTwice_IsRefused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error { return nil }))
			b.start(t)
			if err := b.Run(t.Context()); !errors.Is(err, worker.ErrStarted) {
				t.Errorf("got %v, want ErrStarted", err)
			}
			if err := worker.Handle(b.Worker, "h2", topic, func(context.Context, worker.Event[order]) error { return nil }); !errors.Is(err, worker.ErrStarted) {
				t.Errorf("Handle after Run: got %v, want ErrStarted", err)
			}
		})
	})
}

func TestIntake(t *testing.T) {
	t.Run("SubscriptionThatEnds_IsRenewed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				did.add(e.ID)
				return nil
			}))
			b.start(t)
			b.broker.send(event("1", "k", 1))
			synctest.Wait()
			b.broker.end()
			synctest.Wait()
			if b.Ready() {
				t.Error("ready without a subscription")
			}
			time.Sleep(time.Second)
			if !b.Ready() {
				t.Error("not ready a second later")
			}
			b.broker.send(event("2", "k", 2))
			synctest.Wait()
			equalStrings(t, "handled", did.get(), "1", "2")
		})
	})

	t.Run("SubscribeThatFails_IsTriedAgainEverMoreSlowly_AndToldOnce", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			b.broker.fail = errBroken
			must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error { return nil }))
			b.start(t)
			time.Sleep(10 * time.Minute)
			b.broker.mu.Lock()
			n := b.broker.subscribes
			b.broker.fail = nil
			b.broker.mu.Unlock()
			if n < 100 || n > 250 {
				t.Errorf("%d attempts in 10 minutes", n)
			}
			time.Sleep(5 * time.Second)
			if !b.Ready() {
				t.Error("not ready 5 s after the broker was back")
			}
			must(t, b.stop())
			if lines := strings.Count(b.logged.String(), "\n"); lines != 2 {
				t.Errorf("want a line for the loss and one for the end of it:\n%s", b.logged.String())
			}
		})
	})

	t.Run("EventsInFlight_AreBoundedByCount", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			got := inFlight(t, worker.Options{MaxInFlight: 7}, 10)
			if got != 7 {
				t.Errorf("%d in flight, want 7", got)
			}
		})
	})

	t.Run("EventsInFlight_AreBoundedByBytes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			got := inFlight(t, worker.Options{MaxBytesInFlight: 3<<20 + 1<<19}, 1<<20)
			if got != 3 {
				t.Errorf("%d of 1 MiB in flight, want 3 in 3.5 MiB", got)
			}
		})
	})

	t.Run("EventLargerThanTheBytes_GoesAlone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			got := inFlight(t, worker.Options{MaxBytesInFlight: 1 << 10}, 1<<20)
			if got != 1 {
				t.Errorf("%d in flight, want 1", got)
			}
		})
	})

	t.Run("LostSubscription_LetsWaitingEventsGo", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{Retry: func(int) time.Duration { return time.Hour }})
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				did.add(e.ID)
				if e.ID == "A1" && len(did.get()) == 1 {
					return errBroken
				}
				return nil
			}))
			b.start(t)
			b.broker.send(event("A1", "A", 1), event("A2", "A", 2))
			synctest.Wait()
			b.broker.end() // both will be delivered again, on the next subscription
			time.Sleep(time.Second)
			equalStrings(t, "ran", did.get(), "A1")
			b.broker.send(event("A1", "A", 1), event("A2", "A", 2))
			synctest.Wait()
			equalStrings(t, "ran", did.get(), "A1", "A1", "A2")
			equalStrings(t, "acknowledged", b.broker.ackedIDs(), "A1", "A2")
		})
	})
}

// inFlight sends 20 events of a size, none of which finishes, and returns how
// many were taken.
func inFlight(t *testing.T, opts worker.Options, size int) int {
	t.Helper()
	b := newBench(t, opts)
	release := make(chan struct{})
	taken := make(chan string, 100)
	must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
		taken <- e.ID
		<-release
		return nil
	}))
	b.start(t)
	for i := range 20 {
		m := event(strconv.Itoa(i), "", i)
		m.Metadata.Set("padding", strings.Repeat(".", size))
		b.broker.send(m)
	}
	time.Sleep(time.Second)
	n := len(taken)
	close(release)
	time.Sleep(time.Second)
	return n
}
