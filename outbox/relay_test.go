package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

var msg = outboxtest.Msg

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

func TestRelay_CarriesAMessageWithItsWireFormat(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start(outbox.Options{})
		m := msg("k", 1)
		m.Headers = map[string]string{"kind": "placed"}
		r.add(m)
		pass(time.Second)
		got := r.Sent()[0]
		equal(t, "message", got, outboxtest.Sent{ID: "k/1", Topic: "orders", Key: "k", Payload: "payload 1", Metadata: message.Metadata{
			"kind": "placed", "firstcome-key": "k", "firstcome-topic": "orders", "firstcome-format": "1",
		}})
		s := r.stats()
		equal(t, "pending, relayed", []int64{s.Pending, s.Relayed}, []int64{0, 1})
	})
}

func TestRelay_SkipsNothingHoweverLateATransactionCommits(t *testing.T) {
	for open, found := range map[time.Duration]time.Duration{
		100 * time.Millisecond: time.Second,
		4 * time.Second:        time.Second,
		50 * time.Second:       6 * time.Second,
		9 * time.Minute:        time.Minute + time.Second,
		3 * time.Hour:          5*time.Minute + time.Second,
	} {
		t.Run(open.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.start(outbox.Options{})
				late := r.Begin()
				if err := late.Add(t.Context(), msg("k", 10)); err != nil {
					t.Fatal(err)
				}
				// The later one goes at once, and traffic moves the lane on.
				for i := range 20 {
					r.add(msg("k", 11+i))
					pass(open / 20)
				}
				pass(time.Second)
				equal(t, "sent before the commit", len(r.Sent()), 20)
				if err := late.Commit(); err != nil {
					t.Fatal(err)
				}
				pass(found)
				equal(t, "sent after it", slices.Contains(r.IDs("k"), "k/10"), true)
				equal(t, "repeats", len(r.Sent()), 21)
			})
		})
	}
}

func TestRelay_NeverWaitsForARolledBackTransaction(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start(outbox.Options{})
		gone := r.Begin()
		if err := gone.Add(t.Context(), msg("k", 0)); err != nil {
			t.Fatal(err)
		}
		r.add(msg("k", 1))
		_ = gone.Rollback()
		r.add(msg("k", 2))
		pass(time.Second)
		equal(t, "sent", r.IDs(""), []string{"k/1", "k/2"})
	})
}

func TestRelay_NotifyCutsTheWaitForThePoll(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		relay, _ := r.start(outbox.Options{PollInterval: time.Minute, LeaseTTL: 4 * time.Minute})
		pass(10 * time.Minute)
		r.add(msg("k", 1))
		relay.Notify()
		pass(5 * time.Millisecond)
		equal(t, "sent with a signal", len(r.Sent()), 1)
		pass(10 * time.Minute)
		r.add(msg("k", 2))
		pass(time.Minute)
		equal(t, "sent without", len(r.Sent()), 2)
	})
}

// counting counts calls to the store, and how many are open at once.
type counting struct {
	outbox.Store
	reads, leases, open, most atomic.Int64
}

func (c *counting) enter() func() {
	n := c.open.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	time.Sleep(time.Millisecond) // in a bubble: makes calls overlap
	return func() { c.open.Add(-1) }
}

func (c *counting) Read(ctx context.Context, req outbox.ReadRequest) ([]outbox.Page, error) {
	defer c.enter()()
	c.reads.Add(1)
	return c.Store.Read(ctx, req)
}

func (c *counting) Lease(ctx context.Context, req outbox.LeaseRequest) (outbox.Leases, error) {
	defer c.enter()()
	c.leases.Add(1)
	return c.Store.Lease(ctx, req)
}

func (c *counting) Settle(ctx context.Context, relay string, receipts []outbox.Receipt) (int, error) {
	defer c.enter()()
	return c.Store.Settle(ctx, relay, receipts)
}

func TestRelay_IdleFallsToTheFloorOfPolling(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		store := &counting{Store: r.Memory}
		r.relay(store, r.Recorder, outbox.Options{})
		for i := range 100 {
			r.add(msg("k", i))
		}
		pass(time.Hour)
		before, leases := store.reads.Load(), store.leases.Load()
		pass(time.Minute)
		if reads := store.reads.Load() - before; reads > 121 {
			t.Errorf("%d reads in an idle minute, at 500 ms", reads)
		}
		if n := store.leases.Load() - leases; n > 25 {
			t.Errorf("%d heartbeats in a minute, at 2.5 s", n)
		}
	})
}

func TestRelay_TakesTwoCallsOfTheStoreAtOnceAtMost(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		store := &counting{Store: r.Memory}
		relay, _ := r.relay(store, r.Recorder, outbox.Options{LeaseTTL: 200 * time.Millisecond})
		for i := range 3000 {
			r.add(msg(fmt.Sprint(i%50), i))
			relay.Notify()
		}
		pass(5 * time.Second)
		equal(t, "sent", len(r.Sent()), 3000)
		if most := store.most.Load(); most > 2 {
			t.Errorf("%d calls were open at once", most)
		}
	})
}

// refuse lets the first attempts of some messages fail.
func refuse(times map[string]int, err error) func(string, *message.Message) error {
	var mu sync.Mutex
	return func(_ string, m *message.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if times[m.UUID] > 0 {
			times[m.UUID]--
			return err
		}
		return nil
	}
}

func TestRelay_AnyNumberOfRefusalsNeverChangesAKeysOrder(t *testing.T) {
	publishers := map[string]func(*rig) message.Publisher{
		"OneAtATime": func(r *rig) message.Publisher { return r.Recorder },
		"Batches":    func(r *rig) message.Publisher { return outboxtest.BatchRecorder{Recorder: r.Recorder} },
	}
	for name, publisher := range publishers {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.Answer = refuse(map[string]int{"k/0": 1, "k/3": 4, "k/4": 1, "k/250": 3, "other/7": 2}, errors.New("not now"))
				r.relay(r.Memory, publisher(r), outbox.Options{})
				for i := range 300 {
					r.add(msg("k", i), msg("other", i))
				}
				pass(time.Minute)
				equal(t, "sent", len(r.Sent()), 600)
				outboxtest.InOrder(t, r.Sent())
			})
		})
	}
}

func TestRelay_AKeyInBackoffWaitsAndOthersDoNot(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.Answer = refuse(map[string]int{"k/0": 1}, errors.New("not now"))
		r.start(outbox.Options{Backoff: func(int) time.Duration { return time.Hour }})
		for i := range 500 {
			r.add(msg("k", i), msg(fmt.Sprintf("o%d", i), 0))
		}
		pass(2 * time.Second)
		equal(t, "sent of the others", len(r.Sent()), 500)
		equal(t, "sent of the key", len(r.IDs("k")), 0)
		pass(time.Hour)
		equal(t, "sent of the key", len(r.IDs("k")), 500)
		outboxtest.InOrder(t, r.Sent())
	})
}

func TestRelay_TheAttemptNumberDecidesTheDelayAndTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var (
			mu    sync.Mutex
			tries []time.Duration
		)
		start := time.Now()
		r.Answer = func(_ string, m *message.Message) error {
			if m.UUID == "k/0" {
				mu.Lock()
				defer mu.Unlock()
				tries = append(tries, time.Since(start).Truncate(time.Second))
				return outbox.Refused(errors.New("too large"))
			}
			return nil
		}
		r.start(outbox.Options{MaxAttempts: 4, Backoff: func(n int) time.Duration { return time.Duration(n*n) * 10 * time.Second }})
		r.add(msg("k", 0), msg("k", 1), msg("other", 0))
		pass(time.Hour)
		equal(t, "tries", tries, "[0s 10s 50s 2m20s]")
		parked, err := r.Parked(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "parked", len(parked), 2)
		equal(t, "the refused one", []any{parked[0].Message.ID, parked[0].Attempts, parked[0].Reason, parked[0].Held}, []any{"k/0", 4, "too large", false})
		equal(t, "the one behind it", []any{parked[1].Message.ID, parked[1].Held}, []any{"k/1", true})
		equal(t, "sent", r.IDs(""), []string{"other/0"})
	})
}

func TestRelay_SkipKeyLetsLaterMessagesPassAParkedOne(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.Answer = refuse(map[string]int{"k/1": 1}, outboxtest.ErrPoison)
		r.start(outbox.Options{MaxAttempts: 1, AfterParked: outbox.SkipKey})
		r.add(msg("k", 0), msg("k", 1), msg("k", 2))
		pass(time.Second)
		equal(t, "sent", r.IDs("k"), []string{"k/0", "k/2"})
		parked, _ := r.Parked(t.Context(), 0, 0)
		if _, err := r.Requeue(t.Context(), parked[0].Seq); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		equal(t, "sent", r.IDs("k"), []string{"k/0", "k/2", "k/1"})
	})
}

func TestRelay_RequeueAndDropLetAHeldKeyGoOnInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.Answer = refuse(map[string]int{"k/0": 1, "d/0": 1}, outboxtest.ErrPoison)
		r.start(outbox.Options{MaxAttempts: 1})
		for i := range 400 {
			r.add(msg("k", i), msg("d", i))
		}
		pass(32 * time.Minute) // so that no sweep finds what comes back
		s := r.stats()
		equal(t, "parked, held", []int64{s.Parked, s.Held, s.Pending}, []int64{2, 798, 0})
		parked, _ := r.Parked(t.Context(), 0, 0)
		for i := range 2 {
			if parked[i].Message.Key == "k" {
				if n, err := r.Requeue(t.Context(), parked[i].Seq); err != nil || n != 400 {
					t.Fatal(n, err)
				}
			} else if err := r.Drop(t.Context(), parked[i].Seq); err != nil {
				t.Fatal(err)
			}
		}
		r.add(msg("k", 400))
		pass(time.Minute)
		equal(t, "sent", len(r.Sent()), 401+399)
		k := slices.DeleteFunc(r.Sent(), func(s outboxtest.Sent) bool { return s.Key != "k" })
		outboxtest.InOrder(t, k)
		s = r.stats()
		equal(t, "dropped, relayed, left", []int64{s.Dropped, s.Relayed, s.Pending + s.Parked + s.Held}, []int64{1, 800, 0})
	})
}

func TestRelay_ATopicThatIsNotListedIsParkedAndOthersFlow(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start(outbox.Options{MaxAttempts: 3})
		bad := msg("k", 0)
		bad.Topic = "orders.other"
		r.add(bad, msg("k", 1))
		pass(time.Minute)
		equal(t, "sent", r.IDs(""), []string{"k/1"})
		parked, _ := r.Parked(t.Context(), 0, 0)
		equal(t, "parked", []any{parked[0].Message.ID, parked[0].Reason}, []any{"k/0", "outbox: topic is not on the relay's list"})
	})
}

func TestRelay_ManyFailingKeysDoNotHoldUpFreshOnes(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		failing := 50_000
		if raceEnabled {
			failing = 10_000 // the same case, at the detector's pace
		}
		r.Answer = func(_ string, m *message.Message) error {
			if strings.HasPrefix(m.UUID, "bad") {
				return errors.New("no")
			}
			return nil
		}
		relay, _ := r.start(outbox.Options{Backoff: func(int) time.Duration { return 20 * time.Second }})
		old := make([]outbox.Message, failing)
		for i := range old {
			old[i] = msg(fmt.Sprintf("bad%d", i), 0)
		}
		r.add(old...)
		pass(5 * time.Second)
		for i := range 20 {
			r.add(msg(fmt.Sprintf("fresh%d", i), 0))
			relay.Notify()
			pass(100 * time.Millisecond)
			equal(t, "fresh ones sent", len(r.Sent()), i+1)
			pass(time.Second)
		}
		equal(t, "parked", r.stats().Parked, 0)
	})
}

func TestRelay_AHotKeyDoesNotStarveTheOthersNorTheyIt(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		start := time.Now()
		var mu sync.Mutex
		single := map[string]time.Duration{}
		r.Answer = func(_ string, m *message.Message) error {
			time.Sleep(time.Millisecond) // the broker's round trip, in a bubble
			if key := m.Metadata[outbox.MetadataKey]; key != "hot" {
				mu.Lock()
				single[key] = time.Since(start)
				mu.Unlock()
			}
			return nil
		}
		const hot, singles = 20_000, 5_000
		for i := range hot {
			r.add(msg("hot", i))
		}
		for i := range singles {
			r.add(msg(fmt.Sprintf("s%d", i), 0))
		}
		r.start(outbox.Options{})
		pass(3 * time.Second)
		equal(t, "singles", len(single), singles)
		pass(30 * time.Second)
		equal(t, "all", len(r.Sent()), hot+singles)
		outboxtest.InOrder(t, r.Sent())
	})
}

func TestRelay_AnHourWithoutBrokerParksNothingAndHoldsMemoryFlat(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var down atomic.Bool
		var calls atomic.Int64
		r.Answer = func(string, *message.Message) error {
			calls.Add(1)
			if down.Load() {
				return outbox.Unavailable(errors.New("no broker"))
			}
			return nil
		}
		down.Store(true)
		relay, _ := r.start(outbox.Options{MaxAttempts: 2, MaxMessages: 256})
		written := 0
		for range 60 {
			for range 100 {
				r.add(msg(fmt.Sprintf("k%d", written%300), written/300))
				written++
			}
			relay.Notify()
			pass(time.Minute)
		}
		s := r.stats()
		equal(t, "pending, parked", []int64{s.Pending, s.Parked}, []int64{int64(written), 0})
		if n := calls.Load(); n > 60*60 {
			t.Errorf("%d calls to a broker that was away for an hour", n)
		}
		down.Store(false)
		pass(10 * time.Second)
		equal(t, "sent", len(r.Sent()), written)
		outboxtest.InOrder(t, r.Sent())
	})
}

func TestRelay_AnOutageThatThePublisherDoesNotNameParksNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var down atomic.Bool
		down.Store(true)
		r.Answer = func(string, *message.Message) error {
			if down.Load() {
				return errors.New("something is wrong")
			}
			return nil
		}
		r.start(outbox.Options{MaxAttempts: 3})
		for i := range 1000 {
			r.add(msg(fmt.Sprintf("k%d", i), 0))
		}
		pass(10 * time.Minute)
		if parked := r.stats().Parked; parked >= 3 {
			t.Errorf("%d parked", parked)
		}
		down.Store(false)
		pass(2 * time.Minute)
		s := r.stats()
		equal(t, "pending", s.Pending, 0)
		equal(t, "all", s.Relayed+s.Parked, 1000)
	})
}

func TestRelay_AMessageThatFailsAloneIsParked(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.Answer = func(string, *message.Message) error { return errors.New("never") }
		r.start(outbox.Options{})
		r.add(msg("k", 0))
		pass(15 * time.Minute)
		equal(t, "parked", r.stats().Parked, 1)
	})
}

func TestRelay_APublisherThatPanicsParksItsMessage(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.Answer = func(_ string, m *message.Message) error {
			if m.UUID == "k/0" {
				panic("poison")
			}
			return nil
		}
		r.start(outbox.Options{MaxAttempts: 2})
		r.add(msg("k", 0), msg("other", 0))
		pass(time.Minute)
		equal(t, "sent", r.IDs(""), []string{"other/0"})
		equal(t, "parked", r.stats().Parked, 1)
	})
}

func TestRelay_DrainsAndLeavesNothingHalfDone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		slow := make(chan struct{})
		r.Answer = func(_ string, m *message.Message) error {
			if m.UUID == "k/0" {
				<-slow
			}
			return nil
		}
		_, stop := r.start(outbox.Options{})
		r.add(msg("k", 0), msg("k", 1), msg("other", 0))
		pass(time.Second)
		go func() {
			time.Sleep(3 * time.Second) // in a bubble
			close(slow)
		}()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		equal(t, "sent", r.IDs(""), []string{"other/0", "k/0"})
		s := r.stats()
		equal(t, "pending, relayed, owned, relays", []any{s.Pending, s.Relayed, s.Owned, s.Relays}, []any{1, 2, 0, 0})
		r.start(outbox.Options{})
		pass(time.Second)
		equal(t, "sent", r.IDs("k"), []string{"k/0", "k/1"})
	})
}

func TestRelay_ADrainEndsThoughThePublisherHangs(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		hang := make(chan struct{})
		r.Answer = func(_ string, m *message.Message) error {
			if m.UUID == "k/0" {
				<-hang
			}
			return nil
		}
		_, stop := r.start(outbox.Options{DrainTimeout: time.Second})
		r.add(msg("k", 0), msg("other", 0))
		pass(time.Second)
		before := time.Now()
		if err := stop(); err == nil {
			t.Error("the drain claims to be clean")
		}
		equal(t, "took", time.Since(before), time.Second)
		equal(t, "lanes kept for the open call", r.stats().Owned, 1)
		close(hang)
	})
}

func TestRelay_RunsOnceAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		relay, stop := r.start(outbox.Options{})
		pass(time.Second)
		if err := relay.Run(t.Context()); err == nil {
			t.Error("a second Run was allowed")
		}
		_ = stop()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := relay.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}
