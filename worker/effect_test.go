package worker_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/worker"
)

func TestEffect(t *testing.T) {
	t.Run("RepeatedDelivery_HasOneEffect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if n := effectsOfRepeats(t, newInbox(), nil); n != 1 {
				t.Fatalf("5 deliveries had %d effects", n)
			}
		})
	})

	t.Run("Mutant_InboxNotAsked_TheRepeatTestFails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			blind := newInbox()
			blind.blind = true
			if n := effectsOfRepeats(t, blind, nil); n == 1 {
				t.Fatal("one effect without an inbox: the test of repeats proves nothing")
			}
		})
	})

	t.Run("FailureBeforeTheEffect_LeavesNoMark", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if n := effectsOfRepeats(t, newInbox(), errBroken); n != 1 {
				t.Fatalf("an attempt failed, then 4 deliveries had %d effects", n)
			}
		})
	})

	t.Run("Mutant_MarkedBeforeTheEffect_TheEffectIsLost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			early := newInbox()
			early.markFirst = true
			if n := effectsOfRepeats(t, early, errBroken); n != 0 {
				t.Fatalf("%d effects though the mark came first: the test of marks proves nothing", n)
			}
		})
	})

	t.Run("RepeatsOfAnEventWithoutAKey_WaitForEachOther", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				time.Sleep(time.Second)
				did.add(e.ID)
				return nil
			}))
			b.start(t)
			b.broker.send(event("1", "", 1), event("1", "", 1), event("2", "", 1))
			time.Sleep(time.Minute)
			equal(t, "effects", slices.Sorted(slices.Values(did.get())), []string{"1", "2"}, func(a, b string) bool { return a == b })
		})
	})

	t.Run("EqualPayloads_BothRun", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				did.add(e.ID)
				return nil
			}))
			b.start(t)
			b.broker.send(event("1", "k", 7), event("2", "k", 7))
			synctest.Wait()
			equalStrings(t, "effects", did.get(), "1", "2")
		})
	})

	t.Run("TwoHandlersOfOneEvent_EachOnce_AndOneThatFailsDoesNotRepeatTheOther", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			var did log
			must(t, worker.Handle(b.Worker, "mail", topic, func(context.Context, worker.Event[order]) error {
				did.add("mail")
				return nil
			}))
			must(t, worker.Handle(b.Worker, "ship", topic, func(_ context.Context, e worker.Event[order]) error {
				if e.Attempt == 1 {
					return errBroken
				}
				did.add("ship")
				return nil
			}))
			b.start(t)
			b.broker.send(event("1", "k", 1))
			synctest.Wait()
			equalStrings(t, "before the second attempt", did.get(), "mail")
			if ids := b.broker.ackedIDs(); len(ids) != 0 {
				t.Fatal("acknowledged before both had finished")
			}
			time.Sleep(2 * time.Second)
			b.broker.send(event("1", "k", 1))
			synctest.Wait()
			equalStrings(t, "effects", did.get(), "mail", "ship")
			equalStrings(t, "acknowledged", b.broker.ackedIDs(), "1", "1")
		})
	})

	t.Run("FailedMark_IsRepeatedAlone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{MaxAttempts: 2})
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				did.add(e.ID)
				b.inbox.setFail(errBroken) // the database goes away under us
				return nil
			}))
			b.start(t)
			b.broker.send(event("1", "k", 1))
			time.Sleep(10 * time.Second)
			if ids := b.broker.ackedIDs(); len(ids) != 0 {
				t.Fatal("acknowledged without a mark")
			}
			b.inbox.setFail(nil)
			time.Sleep(2 * time.Second)
			equalStrings(t, "effects", did.get(), "1")
			equalStrings(t, "acknowledged", b.broker.ackedIDs(), "1")
		})
	})

	t.Run("InboxOutage_CountsNoAttempt_AndMakesNoDeadLetter", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{MaxAttempts: 2})
			var attempts log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				attempts.add(e.ID)
				if e.Attempt != 1 {
					t.Errorf("attempt %d, want 1", e.Attempt)
				}
				return nil
			}))
			b.inbox.setFail(errBroken)
			b.start(t)
			b.broker.send(event("1", "k", 1), event("2", "k", 2))
			time.Sleep(time.Hour)
			if l := b.letters.get(); len(l) > 0 || len(attempts.get()) > 0 {
				t.Fatalf("dead letters %v, attempts %v", l, attempts.get())
			}
			b.inbox.setFail(nil)
			time.Sleep(5 * time.Second)
			equalStrings(t, "effects", attempts.get(), "1", "2")
		})
	})
}

// effectsOfRepeats delivers one event five times at once and returns how many
// effects it had. The first attempt of all fails with firstFailure before its
// effect and goes to the dead letters: a stand-in for a crash at that point.
func effectsOfRepeats(t *testing.T, inbox *memInbox, firstFailure error) int {
	t.Helper()
	b := newBench(t, worker.Options{})
	w, err := worker.New(b.broker, inbox, b.letters, &worker.Options{MaxAttempts: 1})
	must(t, err)
	b.Worker = w
	effects := make(chan string, 10)
	fail := make(chan error, 1)
	if firstFailure != nil {
		fail <- firstFailure
	}
	must(t, worker.Handle(w, "h", topic, func(_ context.Context, e worker.Event[order]) error {
		select {
		case err := <-fail:
			return err
		default:
		}
		effects <- e.ID
		return nil
	}))
	b.start(t)
	for range 5 {
		b.broker.send(event("1", "k", 1))
	}
	synctest.Wait()
	if n := len(b.broker.ackedIDs()); n != 5 {
		t.Fatalf("acknowledged %d of 5 deliveries", n)
	}
	return len(effects)
}
