package worker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/worker"
)

// Bad events fail at each attempt; good ones come one every so often, a number
// of times, and succeed. No letter may come before a time, all must by another.
func TestWhichFailuresCount(t *testing.T) {
	const limit, late = 3 * time.Hour, 4 * time.Hour // in place of 7 days, which are many probes
	statementTimeout := fmt.Errorf("update: %w", sqlState("57014"))
	unavailable, contended := worker.Unavailable(errBroken), fmt.Errorf("commit: %w", sqlState("40001"))
	for _, c := range []struct {
		name      string
		bad       int // keys
		err       error
		good      int
		every     time.Duration
		notBefore time.Duration
		by        time.Duration
		class     worker.Class
	}{
		{"OnePoisonKey", 1, errBroken, 0, 0, 8 * time.Second, 10 * time.Second, worker.ClassFailed},
		{"TwoPoisonKeys", 2, errBroken, 0, 0, 8 * time.Second, 10 * time.Second, worker.ClassFailed},
		{"ManyPoisonKeys_AmongOthersThatAreFinished", 30, errBroken, 1000, time.Second, 5 * time.Second, time.Minute, worker.ClassFailed},
		{"StatementThatRunsOutOfItsTime", 1, statementTimeout, 0, 0, 8 * time.Second, 10 * time.Second, worker.ClassFailed},
		{"ABugThatAllKeysMeet", 5, errBroken, 0, 0, 15 * time.Minute, 30 * time.Minute, worker.ClassFailed},
		{"ABugThatAllKeysMeet_AsPanics", 5, errPanic, 0, 0, 15 * time.Minute, 30 * time.Minute, worker.ClassPanic},
		{"OneKeyUnavailable_OthersGoOn", 1, unavailable, 4000, time.Second, 15 * time.Minute, 20 * time.Minute, worker.ClassUnavailable},
		{"SomeKeysUnavailable_OthersGoOn", 20, unavailable, 4000, time.Second, 15 * time.Minute, 30 * time.Minute, worker.ClassUnavailable},
		{"OneKeyContended_OthersGoOn", 1, contended, 4000, time.Second, 15 * time.Minute, 20 * time.Minute, worker.ClassUnavailable},
		{"OneKeyUnavailable_AfterNineteenOthers", 1, unavailable, 19, 5 * time.Minute, limit, late, worker.ClassUnavailable},
		{"OneKeyUnavailable_AfterTwentyEarlyOthers_AndNoneSince", 1, unavailable, 30, time.Second, limit, late, worker.ClassUnavailable},
		{"AllKeysUnavailable", 10, unavailable, 0, 0, limit, late, worker.ClassUnavailable},
		{"AllKeysContended", 10, contended, 0, 0, limit, late, worker.ClassUnavailable},
		{"StopInAnOutage", 5, worker.Stop(unavailable), 0, 0, 0, time.Second, worker.ClassStopped},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, worker.Options{OutageLimit: limit})
				must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
					switch {
					case e.Payload.N >= 1000:
						return nil
					case errors.Is(c.err, errPanic):
						panic("oh")
					}
					return c.err
				}))
				b.start(t)
				began := time.Now()
				b.sendKeys(0, c.bad)
				ctx, end := context.WithCancel(t.Context())
				var sender sync.WaitGroup
				defer sender.Wait()
				defer end()
				sender.Go(func() {
					for n := 0; n < c.good && ctx.Err() == nil; n++ {
						time.Sleep(c.every)
						b.sendKeys(1000+n, 1001+n)
					}
				})
				if c.notBefore > 0 {
					time.Sleep(c.notBefore)
				}
				if l := b.letters.get(); c.notBefore > 0 && len(l) > 0 {
					t.Fatalf("%d letters before %v, the first after %v: %s", len(l), c.notBefore, l[0].At.Sub(began), l[0].Err)
				}
				time.Sleep(c.by - c.notBefore)
				got := b.letters.get()
				if len(got) != c.bad {
					t.Fatalf("%d letters after %v, want %d", len(got), c.by, c.bad)
				}
				for _, l := range got {
					if l.Class != c.class || l.Attempts != 10 && c.class != worker.ClassStopped {
						t.Errorf("class %s after %d attempts, want %s after 10", l.Class, l.Attempts, c.class)
					}
				}
				if c.good < 100 && len(b.broker.ackedIDs()) != c.bad+c.good {
					t.Errorf("%d acknowledged, want %d", len(b.broker.ackedIDs()), c.bad+c.good)
				}
			})
		})
	}
}

var errPanic = errors.New("panics")

func TestOutage_OfTheInboxForOneEvent_EndsInTheDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{})
		b.inbox.refuses = "0"
		must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error { return nil }))
		b.start(t)
		b.sendKeys(0, 1)
		for n := 1; n <= 1200; n++ {
			time.Sleep(time.Second)
			b.sendKeys(n, n+1)
		}
		if l := b.letters.get(); len(l) != 1 || l[0].EventID != "0" || l[0].Class != worker.ClassUnavailable {
			t.Errorf("dead letters %+v", l)
		}
	})
}

func TestOutage_WithoutWitnesses_IsBelievedForAsLongAsTheBrokerKeepsTheEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{ReplayWindow: 24 * time.Hour})
		must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error { return errRefused }))
		b.start(t)
		b.sendKeys(0, 1)
		time.Sleep(24 * time.Hour)
		if l := b.letters.get(); len(l) > 0 {
			t.Errorf("a letter at %v", l[0].At)
		}
		time.Sleep(time.Minute)
		if l := b.letters.get(); len(l) != 1 {
			t.Error("no letter after the replay window")
		}
	})
}

func TestOutagePatience_IsAnOption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{OutagePatience: time.Minute, OutageLimit: time.Hour, MaxAttempts: 1})
		must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
			if e.Payload.N < 1000 {
				return errRefused
			}
			return nil
		}))
		b.start(t)
		b.sendKeys(0, 1)
		time.Sleep(time.Hour)
		if l := b.letters.get(); len(l) != 0 {
			t.Fatalf("a letter after %v", l[0].At)
		}
		time.Sleep(time.Minute)
		if l := b.letters.get(); len(l) != 1 {
			t.Fatal("no letter after OutageLimit")
		}
		b.sendKeys(1, 2)
		time.Sleep(time.Second)
		b.sendKeys(1000, 1100)
		time.Sleep(50 * time.Second)
		b.sendKeys(1100, 1110)
		if l := b.letters.get(); len(l) != 1 {
			t.Fatal("a letter before OutagePatience")
		}
		time.Sleep(15 * time.Second)
		b.sendKeys(1110, 1120)
		time.Sleep(15 * time.Second)
		if l := b.letters.get(); len(l) != 2 {
			t.Fatal("no letter after OutagePatience")
		}
	})
}

// Keys fail at random, in all the ways there are, and there are outages; every
// event ends, in order, once, and in an outage alone nothing becomes a letter.
func TestRandomTrouble_EndsForEveryEvent(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomTrouble(t, seed) })
		})
	}
}

func randomTrouble(t *testing.T, seed uint64) {
	const events = 600
	random := rand.New(rand.NewPCG(seed, 2))
	keys := 1 + random.IntN(60)
	poison := map[int]error{} // by event
	ways := []error{errBroken, errRefused, sqlState("40001"), worker.Stop(errBroken), errPanic, sqlState("57014")}
	for range random.IntN(10) {
		poison[random.IntN(events)] = ways[random.IntN(len(ways))]
	}
	b := newBench(t, worker.Options{
		Concurrency: 1 + random.IntN(40), MaxAttempts: 1 + random.IntN(5),
		OutagePatience: time.Minute, OutageLimit: time.Hour,
	})
	var down atomic.Bool
	last := make([]atomic.Int64, keys)
	must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
		n, k := e.Payload.N, e.Payload.N%keys
		time.Sleep(time.Duration(n*7%13) * time.Millisecond)
		switch err := poison[n]; {
		case down.Load():
			return errRefused
		case errors.Is(err, errPanic):
			panic(err)
		case err != nil:
			return err
		}
		if before := last[k].Swap(int64(n)); before > int64(n) {
			t.Errorf("event %d came after %d", n, before)
		}
		return nil
	}))
	b.start(t)
	for n := range events {
		b.broker.send(event(strconv.Itoa(n), "k"+strconv.Itoa(n%keys), n))
		if random.IntN(100) == 0 {
			down.Store(!down.Load())
			time.Sleep(time.Duration(random.IntN(60)) * time.Second)
		}
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
	}
	down.Store(false)
	time.Sleep(100 * time.Hour)
	if n := len(b.broker.ackedIDs()); n != events {
		t.Errorf("%d of %d events came to an end", n, events)
	}
	letters := map[string]bool{}
	for _, l := range b.letters.get() {
		n, err := strconv.Atoi(l.EventID)
		must(t, err)
		if poison[n] == nil || letters[l.EventID] {
			t.Errorf("letter of event %d (%v), class %s: %s", n, poison[n], l.Class, l.Err)
		}
		letters[l.EventID] = true
	}
	if len(letters) != len(poison) {
		t.Errorf("%d letters, want %d", len(letters), len(poison))
	}
	must(t, b.stop())
	if a, z := strings.Count(b.logged.String(), "worker: outage;"), strings.Count(b.logged.String(), "outage is over"); a != z {
		t.Errorf("%d outages began and %d ended", a, z)
	}
}
