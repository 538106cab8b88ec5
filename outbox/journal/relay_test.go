package journal_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/journal"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

var (
	errAway  = outbox.Unavailable(errors.New("away"))
	errLarge = outbox.Refused(errors.New("too large"))
)

func TestMessage_HasTheOutboxsFormatAndAPayloadWithStableNames(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m := newMemory()
		at := time.Date(2026, 11, 22, 18, 0, 0, 125e6, time.FixedZone("", 9*3600))
		m.put("a<b", journal.Event{SKU: "a<b", Epoch: 3, Seq: 7, Kind: "confirmed", ID: "id1", Quantity: 2,
			Lines: []journal.Line{{SKU: "x", Quantity: 2}}, Released: []journal.Line{{SKU: "y", Quantity: 1}}, At: at},
			journal.Event{SKU: "a<b", Epoch: 3, Seq: 8, Kind: "added", Quantity: 5, At: at})
		start(t, m, pub, journal.These("a<b"), journal.Options{})
		pass(time.Second)
		sent := r.Sent()
		if len(sent) != 2 {
			t.Fatalf("%d messages", len(sent))
		}
		slices.SortFunc(sent, func(a, b outboxtest.Sent) int { return strings.Compare(a.ID, b.ID) })
		const pool = "4a826aacf580757c5183b8f0677ee58f" // printf 'a<b' | sha256sum | cut -c-32
		for i, want := range []outboxtest.Sent{
			{ID: pool + "/3/7", Key: "id1", Payload: `{"version":1,"sku":"a<b","epoch":3,"seq":7,"kind":"confirmed","id":"id1","quantity":2,` +
				`"lines":[{"sku":"x","quantity":2}],"released":[{"sku":"y","quantity":1}],"at":"2026-11-22T09:00:00.125Z"}`},
			{ID: pool + "/3/8", Key: "a<b", Payload: `{"version":1,"sku":"a<b","epoch":3,"seq":8,"kind":"added","quantity":5,"at":"2026-11-22T09:00:00.125Z"}`},
		} {
			got := sent[i]
			if got.ID != want.ID || got.Key != want.Key || got.Payload != want.Payload || got.Topic != topic {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if got.Metadata[outbox.MetadataFormat] != outbox.WireFormat || got.Metadata[outbox.MetadataTopic] != topic || len(got.Metadata) != 3 {
				t.Errorf("metadata: %v", got.Metadata)
			}
		}
	})
}

func TestEvent_OfAnotherVersionIsRefusedClearly(t *testing.T) {
	var e journal.Event
	for text, want := range map[string]string{
		`{"version":2,"sku":"x"}`: "version 2, this build knows 1", `{"sku":"x"}`: "version 0", `[]`: "journal: event",
	} {
		if err := json.Unmarshal([]byte(text), &e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestRelay_TrimsOnlyUpToTheFirstEventThatWasNotAcknowledged(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m := newMemory()
		var away atomic.Bool
		away.Store(true)
		r.Answer = func(_ string, msg *message.Message) error {
			if away.Load() && seqOf(msg) == 4 {
				return errAway
			}
			return nil
		}
		m.add("p", "a", "b")
		m.add("p", "c", "d") // d is event 4
		m.add("p", "d", "a")
		start(t, m, pub, journal.These("p"), journal.Options{Concurrency: 1})
		pass(time.Minute)
		if left := m.waiting("p"); !slices.Equal(left, []int64{3, 4, 5, 6}) {
			t.Errorf("left in the journal: %v, want from 3 on", left)
		}
		if slices.Contains(seqsOf(t, r.Sent()), 5) {
			t.Error("an event has passed an earlier one of its key")
		}
		away.Store(false)
		pass(time.Minute)
		whole(t, firsts(t, r.Sent()), 1, 6)
		if len(m.waiting("p")) > 0 || len(r.Sent()) != 6 {
			t.Errorf("left %v, sent %v: want all trimmed and nothing sent twice", m.waiting("p"), seqsOf(t, r.Sent()))
		}
	})
}

func TestRelay_ARefusedEventStopsItsPoolLoudlyAndIsNeverDropped(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m, book := newMemory(), &logbook{}
		var refuse atomic.Bool
		refuse.Store(true)
		r.Answer = func(_ string, msg *message.Message) error {
			if refuse.Load() && msg.Metadata[outbox.MetadataKey] == "secret" {
				return errLarge
			}
			return nil
		}
		var told []journal.Refusal
		m.add("bad", "a")
		m.add("bad", "secret")
		start(t, m, pub, journal.These("bad", "good"), journal.Options{RefusedRetry: time.Minute, Logger: book.logger(),
			OnRefused: func(refusal journal.Refusal) { told = append(told, refusal) }})
		pass(time.Second)
		m.add("bad", "b")
		m.add("good", "c")
		pass(10 * time.Minute)
		if left := m.waiting("bad"); !slices.Equal(left, []int64{2, 3}) || len(m.waiting("good")) > 0 {
			t.Errorf("left %v of bad, %v of good", left, m.waiting("good"))
		}
		if len(told) < 10 || len(told) > 12 || told[0].Pool != "bad" || told[0].Epoch != 1 || told[0].Seq != 2 || !errors.Is(told[0].Err, errLarge) {
			t.Errorf("told %d times: %+v", len(told), told)
		}
		if text := book.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "event refused") ||
			!strings.Contains(text, "sku=bad") || strings.Contains(text, "secret") {
			t.Errorf("log:\n%s", text)
		}
		if len(r.IDs("b")) > 0 {
			t.Error("a stopped pool has sent")
		}
		refuse.Store(false)
		pass(time.Minute + time.Second)
		if got := len(r.Sent()); got != 4 || len(m.waiting("bad")) > 0 {
			t.Errorf("%d messages sent, left %v", got, m.waiting("bad"))
		}
	})
}

func TestRelay_WhatNoConsumerCouldUseStopsThePool(t *testing.T) {
	good := journal.Event{SKU: "p", Epoch: 1, Seq: 2, Kind: "reserved", ID: "x", Quantity: 1, At: time.Now()}
	for name, spoil := range map[string]func(*journal.Event){
		"OfAnotherPool": func(e *journal.Event) { e.SKU = "q" }, "NoSeq": func(e *journal.Event) { e.Seq = 0 }, "NoEpoch": func(e *journal.Event) { e.Epoch = 0 },
		"NoKind": func(e *journal.Event) { e.Kind = "unknown" }, "KeyTooLong": func(e *journal.Event) { e.ID = strings.Repeat("x", 256) },
	} {
		t.Run(name, func(t *testing.T) {
			eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
				m, book := newMemory(), &logbook{}
				bad := good
				spoil(&bad)
				m.add("p", "x")
				m.put("p", bad)
				m.add("p", "x")
				start(t, m, pub, journal.These("p"), journal.Options{Logger: book.logger()})
				pass(time.Hour)
				if len(r.Sent()) != 1 || len(m.waiting("p")) != 2 || !strings.Contains(book.String(), "event refused") {
					t.Errorf("sent %d, left %v, log:\n%s", len(r.Sent()), m.waiting("p"), book.String())
				}
			})
		})
	}
}

func TestRelay_AnAbsentBrokerIsTriedWithOneEventAtATime(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m, book := newMemory(), &logbook{}
		var away atomic.Bool
		var tries atomic.Int64
		r.Answer = func(string, *message.Message) error {
			if away.Load() {
				tries.Add(1)
				return errAway
			}
			return nil
		}
		away.Store(true)
		for i := range 5000 {
			m.add("p", fmt.Sprint(i%100))
		}
		relay, _ := start(t, m, pub, journal.These("p"), journal.Options{Logger: book.logger()})
		pass(10 * time.Minute)
		if n := tries.Load(); n < 250 || n > 600 {
			t.Errorf("%d tries in ten minutes", n)
		}
		before := tries.Load()
		for range 20 { // a wake-up is no reason to hammer it
			relay.Notify("p")
			pass(time.Millisecond)
		}
		if n := tries.Load() - before; n > 1 {
			t.Errorf("%d tries on 20 wake-ups", n)
		}
		if lines := strings.Count(book.String(), "\n"); lines > 12 {
			t.Errorf("%d lines in the log", lines)
		}
		away.Store(false)
		pass(5 * time.Second)
		if sent := r.Sent(); len(sent) != 5000 || len(m.waiting("p")) > 0 {
			t.Errorf("%d of 5000 sent, %d left", len(sent), len(m.waiting("p")))
		}
		whole(t, firsts(t, r.Sent()), 1, 5000)
		if !strings.Contains(book.String(), "journal goes on") {
			t.Error("the end of the trouble is not in the log")
		}
	})
}

func TestRelay_AfterATrimThatFailedNothingIsSentAgain(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m := newMemory()
		var broken atomic.Bool
		broken.Store(true)
		m.fail = func(step string) error {
			if step == "trim" && broken.Load() {
				return errors.New("no")
			}
			return nil
		}
		m.add("p", "a", "b")
		m.add("p", "a")
		start(t, m, pub, journal.These("p"), journal.Options{})
		pass(time.Minute)
		m.add("p", "b")
		pass(time.Minute)
		broken.Store(false)
		pass(time.Minute)
		if got := seqsOf(t, r.Sent()); len(got) != 4 || len(m.waiting("p")) > 0 {
			t.Errorf("sent %v, left %v", got, m.waiting("p"))
		}
	})
}

func TestRelay_WhatHasTheNumbersOfAnEventThatCouldNotBeTrimmedIsSent(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m := newMemory()
		m.fail = func(step string) error {
			if step == "trim" && len(r.Sent()) < 2 {
				return errors.New("no")
			}
			return nil
		}
		e := journal.Event{SKU: "p", Epoch: 1, Seq: 1, Kind: "added", Quantity: 1, At: time.Now()}
		m.put("p", e)
		start(t, m, pub, journal.These("p"), journal.Options{})
		pass(time.Minute)
		m.lose("p") // and the server that took over writes, unaware, in the same millisecond
		e.Quantity = 2
		m.put("p", e)
		pass(time.Minute)
		if sent := r.Sent(); len(sent) != 2 || decode(t, sent[1].Payload).Quantity != 2 || len(m.waiting("p")) > 0 {
			t.Errorf("sent %+v, left %v", sent, m.waiting("p"))
		}
	})
}

func TestRelay_APublisherThatFailedAfterItPublishedMakesRepeatsWithTheSameID(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m := newMemory()
		lost := 0
		r.Answer = func(_ string, msg *message.Message) error {
			if lost < 3 && seqOf(msg) == 1 {
				lost++
				r.Keep(topic, msg)
				return errAway // the reply was lost
			}
			return nil
		}
		m.add("p", "a", "a", "a")
		start(t, m, pub, journal.These("p"), journal.Options{})
		pass(time.Minute)
		if got := seqsOf(t, r.Sent()); !slices.Equal(got, []int64{1, 1, 1, 1, 2, 3}) {
			t.Errorf("sent %v", got)
		}
		whole(t, firsts(t, r.Sent()), 1, 3)
	})
}

func TestRelay_APanicInThePublisherIsARefusal(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m := newMemory()
		m.add("p", "a")
		panicked := false
		r.Answer = func(string, *message.Message) error {
			if !panicked {
				panicked = true
				panic("boom")
			}
			return nil
		}
		start(t, m, pub, journal.These("p"), journal.Options{})
		pass(2 * time.Minute)
		if !panicked || len(r.Sent()) != 1 || len(m.waiting("p")) > 0 {
			t.Errorf("sent %d, left %v", len(r.Sent()), m.waiting("p"))
		}
	})
}

func TestRun_DrainsWhatIsBeingPublishedTrimsItAndBeginsNothingNew(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m := newMemory()
		begun := 0
		r.Answer = func(_ string, msg *message.Message) error {
			begun++
			select {
			case <-time.After(3 * time.Second):
				return nil
			case <-msg.Context().Done():
				return errAway
			}
		}
		for range 5 {
			m.add("p", "a")
		}
		_, stop := start(t, m, pub, journal.These("p"), journal.Options{BatchSize: 1})
		pass(time.Second) // the first is with the publisher
		if err := stop(); err != nil {
			t.Error(err)
		}
		if left := m.waiting("p"); begun != 1 || len(r.Sent()) != 1 || !slices.Equal(left, []int64{2, 3, 4, 5}) {
			t.Errorf("%d calls begun, %d sent, left %v; want 1, 1 and from 2 on", begun, len(r.Sent()), left)
		}
	})
}

func TestRun_GivesUpAPublisherThatDoesNotAnswer(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m, release := newMemory(), make(chan struct{})
		r.Answer = func(string, *message.Message) error { <-release; return nil }
		m.add("p", "a")
		_, stop := start(t, m, pub, journal.These("p"), journal.Options{DrainTimeout: 4 * time.Second})
		pass(time.Second)
		begun := time.Now()
		if err := stop(); err == nil || !strings.Contains(err.Error(), "1 pools") || time.Since(begun) != 4*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		close(release)
		synctest.Wait()
		if len(m.waiting("p")) != 1 {
			t.Error("trimmed after Run had returned")
		}
	})
}

func TestRun_OnceAtATimeAndAgainAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(), outboxtest.NewRecorder(nil)
		relay, stop := start(t, m, r, journal.These("p"), journal.Options{})
		pass(time.Second)
		if err := relay.Run(t.Context()); err == nil {
			t.Error("it runs twice")
		}
		ok(t, stop())
		m.add("p", "a")
		relay.Notify("p")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ok(t, relay.Run(ctx))
		if len(r.Sent()) != 1 {
			t.Errorf("%d sent", len(r.Sent()))
		}
	})
}

// TestRelays_WithoutALeaseKeepEachKeysOrder lets relays of one pool, some of them
// started late or ended early, run through every trouble a publisher can make:
// slow calls, calls that were lost before or after, and calls that fail and
// reach the broker half a minute later.
func TestRelays_WithoutALeaseKeepEachKeysOrder(t *testing.T) {
	seeds := uint64(40)
	if raceEnabled {
		seeds = 10 // at the detector's pace
	}
	for seed := range seeds {
		eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, _ message.Publisher) {
			m := newMemory()
			const relays, events = 3, 400
			done := make(chan struct{})
			var ended sync.WaitGroup
			for i := range relays {
				pub := &trouble{Recorder: r, rand: rand.New(rand.NewPCG(seed, uint64(i))), done: done}
				var p message.Publisher = pub
				if strings.HasSuffix(t.Name(), "Batches") {
					p = batchTrouble{pub}
				}
				_, stop := start(t, m, p, journal.These("p"), journal.Options{PageEvents: 50, BatchSize: 7, PollInterval: 100 * time.Millisecond,
					// The publisher heeds no context, so that one that ends only makes work.
					PublishTimeout: 10 * time.Hour, DrainTimeout: time.Hour})
				if i > 0 && seed%2 == 1 {
					ended.Go(func() {
						time.Sleep(20 * time.Second)
						_ = stop()
					})
				}
			}
			random := rand.New(rand.NewPCG(seed, 99))
			for n := 0; n < events; {
				var ids []string
				for range min(1+random.IntN(20), events-n) {
					ids = append(ids, fmt.Sprint(random.IntN(10)))
					n++
				}
				m.add("p", ids...)
				time.Sleep(rand.N(time.Second))
			}
			for minutes := 0; len(m.waiting("p")) > 0 && minutes < 60; minutes++ {
				pass(time.Minute)
			}
			close(done)
			ended.Wait()
			synctest.Wait()
			whole(t, firsts(t, r.Sent()), 1, events)
			if left := m.waiting("p"); len(left) > 0 {
				t.Errorf("left after an hour: %v", left)
			}
			if len(r.Sent()) == events {
				t.Error("nothing came twice: the relays have not met")
			}
		})
	}
}

// trouble is a publisher through which a message comes sooner, later or twice.
type trouble struct {
	*outboxtest.Recorder
	rand *rand.Rand
	lock atomic.Bool
	done chan struct{}
}

func (p *trouble) dice(n int) int {
	for !p.lock.CompareAndSwap(false, true) {
	}
	defer p.lock.Store(false)
	return p.rand.IntN(n)
}

func (p *trouble) Publish(topic string, msgs ...*message.Message) error {
	for _, msg := range msgs {
		if !p.arrives(func() { p.Keep(topic, msg) }) {
			return errAway
		}
	}
	return nil
}

// arrives plays one call, which keeps what it carries in its own good time.
func (p *trouble) arrives(keep func()) (acknowledged bool) {
	time.Sleep(time.Duration(p.dice(20)) * time.Millisecond)
	switch p.dice(20) {
	case 0: // lost
		return false
	case 1: // arrived, the answer lost
		keep()
		return false
	case 2: // given up, and arrives late
		late := time.Duration(p.dice(30_000)) * time.Millisecond
		go func() {
			select {
			case <-time.After(late):
				keep()
			case <-p.done:
			}
		}()
		return false
	case 3: // frozen
		time.Sleep(time.Duration(p.dice(30_000)) * time.Millisecond)
	}
	keep()
	return true
}

type batchTrouble struct{ *trouble }

func (p batchTrouble) PublishBatch(_ context.Context, batch []*message.Message) []error {
	errs := make([]error, len(batch))
	if !p.arrives(func() {
		for _, msg := range batch {
			p.Keep(topic, msg)
		}
	}) {
		for i := range errs {
			errs[i] = errAway
		}
	}
	return errs
}

func TestLease_LetsOneRelayWorkAndAnotherTakeOver(t *testing.T) {
	eachPublisher(t, func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher) {
		m := newMemory()
		m.fail = func(step string) error {
			if step == "trim" { // so slow that another relay would come in between
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		}
		var dead atomic.Bool
		first := leasing{m}
		_, stopFirst := start(t, dying{first, &dead}, pub, journal.These("p"), journal.Options{})
		_, stopSecond := start(t, first, pub, journal.These("p"), journal.Options{})
		for range 100 {
			m.add("p", "a", "b")
			pass(30 * time.Millisecond)
		}
		pass(time.Second)
		if got := len(r.Sent()); got != 200 {
			t.Errorf("%d messages of 200 events: two relays were at work", got)
		}
		dead.Store(true) // the first reaches its store no more, as good as killed
		m.add("p", "a")
		pass(8 * time.Second)
		if len(m.waiting("p")) > 0 || len(r.Sent()) != 201 {
			t.Errorf("nobody has taken over: %d sent, left %v", len(r.Sent()), m.waiting("p"))
		}
		ok(t, stopFirst())
		dead.Store(false)
		start(t, first, pub, journal.These("p"), journal.Options{LeaseTTL: time.Hour})
		pass(time.Second)
		ok(t, stopSecond()) // this one gives back what it has
		if m.leases["p"].until.After(time.Now()) {
			t.Error("a lease outlives an orderly end")
		}
	})
}

// dying is a leasing store that a process may be cut off from.
type dying struct {
	leasing
	dead *atomic.Bool
}

func (d dying) gone() error {
	if d.dead.Load() {
		return errors.New("gone")
	}
	return nil
}

func (d dying) LeaseJournal(ctx context.Context, pool, relay string, ttl time.Duration) (bool, error) {
	if err := d.gone(); err != nil {
		return false, err
	}
	return d.leasing.LeaseJournal(ctx, pool, relay, ttl)
}

func (d dying) ReadJournal(ctx context.Context, pool string, n int) ([]journal.Entry, error) {
	if err := d.gone(); err != nil {
		return nil, err
	}
	return d.leasing.ReadJournal(ctx, pool, n)
}

func TestPools_ThatComeToTheListAreRelayedAndThoseThatLeaveItAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(), outboxtest.NewRecorder(nil)
		var list atomic.Value
		list.Store([]string{"a"})
		var broken atomic.Bool
		pools := func(context.Context) ([]string, error) {
			if broken.Load() {
				return nil, errors.New("no")
			}
			return list.Load().([]string), nil
		}
		start(t, m, r, pools, journal.Options{})
		seen := func(pool string, want int) {
			t.Helper()
			m.add(pool, pool)
			pass(10 * time.Second)
			if got := len(r.IDs(pool)); got != want {
				t.Errorf("%d messages of %s, want %d", got, pool, want)
			}
		}
		seen("a", 1)
		seen("b", 0)
		list.Store([]string{"a", "b"})
		seen("b", 2)
		list.Store([]string{"b"})
		pass(10 * time.Second)
		seen("a", 1)
		broken.Store(true)
		seen("b", 3) // what was known goes on
		broken.Store(false)
		list.Store([]string{"a", "b"})
		seen("a", 3)
	})
}

func TestNotify_IsFasterThanThePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(), outboxtest.NewRecorder(nil)
		relay, _ := start(t, m, r, journal.These("p"), journal.Options{PollInterval: time.Hour})
		pass(3 * time.Hour)
		m.add("p", "a")
		relay.Notify("p")
		relay.Notify("p")
		relay.Notify("unknown")
		pass(time.Millisecond)
		if len(r.Sent()) != 1 {
			t.Error("a wake-up was not heard")
		}
		pass(3 * time.Hour)
		m.add("p", "a")
		pass(time.Hour)
		if len(r.Sent()) != 2 {
			t.Error("without a wake-up it is never seen")
		}
	})
}

func TestRelay_ReadsLittleWhereEntriesAreLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(), outboxtest.NewRecorder(nil)
		ids := make([]string, 1000)
		for i := range ids {
			ids[i] = fmt.Sprint(i)
		}
		for range 30 {
			m.add("p", ids...)
		}
		for range 3000 {
			m.add("p", "a")
		}
		start(t, m, outboxtest.BatchRecorder{Recorder: r}, journal.These("p"), journal.Options{})
		pass(time.Minute)
		if len(r.Sent()) != 33_000 || len(m.waiting("p")) > 0 {
			t.Errorf("%d sent", len(r.Sent()))
		}
		if m.most > 5000 || slices.Max(m.asked) != 128 || slices.Min(m.asked) < 1 {
			t.Errorf("at most %d events at once; asked for %v entries", m.most, m.asked)
		}
	})
}

func TestRelay_SaysWhenTheJournalHasAGapOrWentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r, book := newMemory(), outboxtest.NewRecorder(nil), &logbook{}
		event := func(seq int64) journal.Event {
			return journal.Event{SKU: "p", Epoch: 1, Seq: seq, Kind: "reserved", ID: "x", Quantity: 1, At: time.Now()}
		}
		start(t, m, r, journal.These("p"), journal.Options{Logger: book.logger()})
		m.put("p", event(1), event(2))
		pass(time.Second)
		m.put("p", event(5)) // another relay may have trimmed 3 and 4
		pass(time.Second)
		if text := book.String(); text != "" {
			t.Errorf("log:\n%s", text)
		}
		m.put("p", event(6), event(9))
		pass(time.Second)
		if text := book.String(); !strings.Contains(text, "has a gap") {
			t.Errorf("log:\n%s", text)
		}
		m.put("p", event(9))
		pass(time.Second)
		if text := book.String(); !strings.Contains(text, "went back") {
			t.Errorf("log:\n%s", text)
		}
		if got := seqsOf(t, r.Sent()); !slices.Equal(got, []int64{1, 2, 5, 6, 9, 9}) {
			t.Errorf("sent %v", got)
		}
	})
}

func TestNew_NamesWhatIsWrong(t *testing.T) {
	m, r, p := newMemory(), outboxtest.NewRecorder(nil), journal.These("p")
	for want, make := range map[string]func() (*journal.Relay, error){
		"reader is nil":    func() (*journal.Relay, error) { return journal.New(nil, r, topic, p, nil) },
		"publisher is nil": func() (*journal.Relay, error) { return journal.New(m, nil, topic, p, nil) },
		"pools is nil":     func() (*journal.Relay, error) { return journal.New(m, r, topic, nil, nil) },
		"Topic":            func() (*journal.Relay, error) { return journal.New(m, r, "no topic", p, nil) },
		"Options.PollInterval": func() (*journal.Relay, error) {
			return journal.New(m, r, topic, p, &journal.Options{PollInterval: time.Microsecond})
		},
		"Options.MaxPools": func() (*journal.Relay, error) { return journal.New(m, r, topic, p, &journal.Options{MaxPools: -1}) },
	} {
		if _, err := make(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
