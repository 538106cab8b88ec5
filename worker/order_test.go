package worker_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/worker"
)

func TestOrder(t *testing.T) {
	t.Run("SlowKey_LeavesTheOthersAlone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			began := time.Now()
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				if e.Key == "slow" {
					time.Sleep(10 * time.Second)
				} else {
					time.Sleep(5 * time.Millisecond)
				}
				did.add(e.Key + " " + time.Since(began).String())
				return nil
			}))
			b.start(t)
			b.broker.send(event("1", "slow", 1), event("2", "fast", 2))
			time.Sleep(11 * time.Second)
			equalStrings(t, "ends", did.get(), "fast 5ms", "slow 10s")
		})
	})

	t.Run("FailedEvent_HoldsItsKeyAndNoOther", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				did.add(fmt.Sprintf("%s#%d", e.ID, e.Attempt))
				if e.ID == "A1" && e.Attempt < 3 {
					return errBroken
				}
				return nil
			}))
			b.start(t)
			b.broker.send(event("A1", "A", 1), event("A2", "A", 2), event("B1", "B", 3))
			synctest.Wait()
			if got := did.get(); len(got) != 2 {
				t.Fatalf("while A backs off, want A1#1 and B1#1 only; got %v", got)
			}
			time.Sleep(10 * time.Second)
			got := did.get()
			equalStrings(t, "after the backoff", got[2:], "A1#2", "A1#3", "A2#1")
		})
	})

	t.Run("ManyKeys_EachInOrder", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if err := disorder(t, func(key string) string { return key }); err != nil {
				t.Fatal(err)
			}
		})
	})

	t.Run("Mutant_WithoutKeys_TheOrderTestFails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if err := disorder(t, func(string) string { return "" }); err == nil {
				t.Fatal("events without a key came in order: the test of order proves nothing")
			}
		})
	})

	t.Run("Concurrency_IsBounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{Concurrency: 3})
			running, most := make(chan int, 1), 0
			running <- 0
			must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error {
				n := <-running + 1
				most = max(most, n)
				running <- n
				time.Sleep(time.Second)
				running <- <-running - 1
				return nil
			}))
			b.start(t)
			for i := range 20 {
				b.broker.send(event(strconv.Itoa(i), strconv.Itoa(i), i))
			}
			time.Sleep(time.Minute)
			<-running
			if most != 3 || len(b.broker.ackedIDs()) != 20 {
				t.Fatalf("most at once %d, want 3; acknowledged %d, want 20", most, len(b.broker.ackedIDs()))
			}
		})
	})

	t.Run("HandlerThatIgnoresItsTime_IsNotOvertakenByItsKey", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{Timeout: time.Second, MaxAttempts: 2})
			began := time.Now()
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(ctx context.Context, e worker.Event[order]) error {
				did.add(fmt.Sprintf("%s begins at %v", e.ID, time.Since(began)))
				defer func() { did.add(fmt.Sprintf("%s ends at %v", e.ID, time.Since(began))) }()
				if e.ID == "A1" {
					time.Sleep(5 * time.Second) // deaf to ctx
					return ctx.Err()
				}
				return nil
			}))
			b.start(t)
			b.broker.send(event("A1", "A", 1), event("A2", "A", 2))
			time.Sleep(time.Minute)
			equalStrings(t, "runs", did.get(),
				"A1 begins at 0s", "A1 ends at 5s", "A1 begins at 6s", "A1 ends at 11s",
				"A2 begins at 11s", "A2 ends at 11s")
			if l := b.letters.get(); len(l) != 1 || l[0].Class != worker.ClassTimeout {
				t.Fatalf("dead letters: got %+v, want one of class timeout", l)
			}
		})
	})
}

// disorder runs 400 events of 8 keys through handlers of uneven speed and says
// which key came out of order or overlapped.
func disorder(t *testing.T, key func(string) string) (found error) {
	t.Helper()
	b := newBench(t, worker.Options{})
	last, busy := map[int]int{}, map[int]bool{}
	lock := make(chan struct{}, 1)
	must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
		k, n := e.Payload.N%8, e.Payload.N
		lock <- struct{}{}
		if busy[k] || n < last[k] {
			found = fmt.Errorf("key %d: event %d came after or beside %d", k, n, last[k])
		}
		busy[k], last[k] = true, n
		<-lock
		time.Sleep(time.Duration(n*7%13) * time.Millisecond)
		lock <- struct{}{}
		busy[k] = false
		<-lock
		if n%50 == 0 && e.Attempt == 1 {
			return errBroken
		}
		return nil
	}))
	b.start(t)
	for n := range 400 {
		b.broker.send(event("e"+strconv.Itoa(n), key("k"+strconv.Itoa(n%8)), n))
	}
	time.Sleep(time.Hour)
	if n := len(b.broker.ackedIDs()); n != 400 {
		t.Fatalf("acknowledged %d of 400", n)
	}
	return found
}
