package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

// ice stops a relay at each of its steps to the outside, as SIGSTOP does.
type ice struct {
	outbox.Store
	message.Publisher
	mu     sync.Mutex
	frozen chan struct{} // nil: not frozen
	late   atomic.Int64  // rows that a settle after a freeze still deleted
	was    atomic.Bool
}

func (i *ice) freeze() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.frozen = make(chan struct{})
	i.was.Store(true)
}

func (i *ice) thaw() {
	i.mu.Lock()
	defer i.mu.Unlock()
	close(i.frozen)
	i.frozen = nil
}

func (i *ice) wait() {
	i.mu.Lock()
	frozen := i.frozen
	i.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

func (i *ice) Publish(topic string, msgs ...*message.Message) error {
	i.wait()
	return i.Publisher.Publish(topic, msgs...)
}

func (i *ice) Close() error { return nil }

func (i *ice) Lease(_ context.Context, req outbox.LeaseRequest) (outbox.Leases, error) {
	i.wait()
	return i.Store.Lease(context.Background(), req)
}

func (i *ice) Settle(_ context.Context, relay string, receipts []outbox.Receipt) (int, error) {
	i.wait()
	n, err := i.Store.Settle(context.Background(), relay, receipts)
	if i.was.Load() {
		i.late.Add(int64(n))
	}
	return n, err
}

func TestRelay_FrozenPastItsLeaseRepeatsItsOpenCallsAtMostAndDeletesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		const open = 4
		cold := &ice{Store: r.Memory, Publisher: r.Recorder}
		r.relay(cold, cold, outbox.Options{Concurrency: open})
		r.add(msg("warm", 0))
		pass(time.Second)
		equal(t, "sent by the first", len(r.Sent()), 1)

		cold.freeze()
		const keys, each = 30, 10
		for n := range each {
			for k := range keys {
				r.add(msg(fmt.Sprintf("k%d", k), n))
			}
		}
		pass(time.Second) // it has read, and stands before the broker
		_, stop := r.relay(r.Memory, r.Recorder, outbox.Options{})
		pass(15 * time.Second)
		equal(t, "sent by the second", len(r.Sent()), 1+keys*each)
		cold.thaw()
		pass(time.Second)
		if repeats := len(r.Sent()) - 1 - keys*each; repeats > open {
			t.Errorf("%d repeats, %d calls were open", repeats, open)
		}
		outboxtest.InOrder(t, r.Sent())
		equal(t, "deleted by the first", cold.late.Load(), 0)
		s := r.stats()
		equal(t, "pending, relayed", []int64{s.Pending, s.Relayed}, []int64{0, 1 + keys*each})

		// Thawed, it is a relay like another.
		pass(10 * time.Second)
		_ = stop()
		r.add(msg("warm", 1))
		pass(10 * time.Second)
		equal(t, "sent", r.IDs("warm"), []string{"warm/0", "warm/1"})
	})
}

func TestRelay_SendsNothingAfterItsLeaseThoughTheStoreIsAway(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var last atomic.Int64
		start := time.Now()
		r.Answer = func(string, *message.Message) error {
			time.Sleep(100 * time.Millisecond) // in a bubble
			last.Store(int64(time.Since(start)))
			return nil
		}
		r.start(outbox.Options{Concurrency: 1, LeaseTTL: 10 * time.Second, PublishTimeout: time.Second})
		for i := range 1000 {
			r.add(msg(fmt.Sprintf("k%d", i), 0))
		}
		pass(time.Second)
		r.Fail(errors.New("database away"))
		pass(time.Minute)
		if ended := time.Duration(last.Load()); ended > 10*time.Second+time.Second {
			t.Errorf("published %v after the lease was renewed for the last time", ended-time.Second)
		}
		r.Fail(nil)
		pass(2 * time.Minute)
		equal(t, "pending", r.stats().Pending, 0)
	})
}

func TestRelay_ALaneThatChangesHandsInFullFlightIsNeverSentTwice(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var busy sync.Map
		r.Answer = func(_ string, m *message.Message) error {
			key := m.Metadata[outbox.MetadataKey]
			if _, two := busy.LoadOrStore(key, true); two {
				t.Errorf("key %s has two publishers at a time", key)
			}
			time.Sleep(7 * time.Millisecond) // in a bubble
			busy.Delete(key)
			return nil
		}
		stops := []func() error{}
		written := 0
		for round := range 12 {
			for range 50 {
				for k := range 40 {
					r.add(msg(fmt.Sprintf("k%d", k), written/40))
					written++
				}
				pass(20 * time.Millisecond)
			}
			if round%3 == 2 { // one goes, amid the flow
				if err := stops[0](); err != nil {
					t.Fatal(err)
				}
				stops = stops[1:]
			} else {
				_, stop := r.start(outbox.Options{LeaseTTL: 2 * time.Second})
				stops = append(stops, stop)
			}
		}
		pass(time.Minute)
		equal(t, "sent, repeats among them", len(r.Sent()), written)
		outboxtest.InOrder(t, r.Sent())
	})
}

func TestRelay_KilledBetweenAckAndDeleteSendsTheSameMessageAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		deaf := &ice{Store: failing{r.Memory}, Publisher: r.Recorder}
		r.relay(deaf, deaf, outbox.Options{DrainTimeout: time.Second, LeaseTTL: time.Second})
		m := msg("k", 0)
		m.Headers = map[string]string{"kind": "placed"}
		r.add(m)
		pass(time.Second)
		deaf.freeze() // never thawed in time: killed
		r.start(outbox.Options{LeaseTTL: time.Second})
		pass(5 * time.Second)
		sent := r.Sent()
		equal(t, "sent", len(sent), 2)
		equal(t, "the second", sent[1], sent[0])
		equal(t, "pending", r.stats().Pending, 0)
		deaf.thaw()
	})
}

// failing is a store whose deletes fail.
type failing struct{ *outboxtest.Memory }

func (failing) Settle(context.Context, string, []outbox.Receipt) (int, error) {
	return 0, errors.New("connection lost")
}

func TestRelay_DeletesOnlyWhatWasAcknowledgedThoughOneHangs(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		hang := make(chan struct{})
		r.Answer = func(_ string, m *message.Message) error {
			if m.UUID == "k/1" {
				<-hang
			}
			return nil
		}
		r.start(outbox.Options{})
		for i := range 5 {
			r.add(msg("k", i), msg(fmt.Sprintf("o%d", i), 0))
		}
		pass(time.Minute)
		s := r.stats()
		equal(t, "relayed, pending", []int64{s.Relayed, s.Pending}, []int64{6, 4})
		close(hang)
		pass(time.Second)
		equal(t, "pending", r.stats().Pending, 0)
		outboxtest.InOrder(t, r.Sent())
	})
}

func TestRelay_SpreadsLanesFairlyAndTakesOverFromTheDead(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		relays := make([]*owned, 4)
		stops := make([]func() error, 4)
		for i := range relays {
			relays[i] = &owned{Store: r.Memory}
			_, stops[i] = r.relay(relays[i], r.Recorder, outbox.Options{})
			pass(time.Second)
		}
		pass(20 * time.Second)
		for i := range relays {
			equal(t, "lanes of each", relays[i].n.Load(), 16)
		}
		_ = stops[0]()
		pass(2500*time.Millisecond + 10*time.Millisecond)
		sum := int64(0)
		for i := range relays[1:] {
			sum += relays[i+1].n.Load()
		}
		equal(t, "lanes of the others a heartbeat later", sum, outbox.Lanes)
		synctest.Wait()
	})
}

// owned notes how many lanes a relay has.
type owned struct {
	outbox.Store
	n atomic.Int64
}

func (o *owned) Lease(ctx context.Context, req outbox.LeaseRequest) (outbox.Leases, error) {
	leases, err := o.Store.Lease(ctx, req)
	o.n.Store(int64(len(leases.Lanes)))
	return leases, err
}

func TestRelay_ACallThatBeginsTooLateIsNotMade(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		// A span is started between the look at the lease and the call: here the
		// process freezes, for longer than the lease.
		froze := atomic.Bool{}
		before := otel.GetTracerProvider()
		otel.SetTracerProvider(sleepy{froze: &froze})
		defer otel.SetTracerProvider(before)
		r.Answer = func(_ string, m *message.Message) error {
			if err := m.Context().Err(); err != nil {
				t.Errorf("a call was made although %v", err)
			}
			return nil
		}
		r.start(outbox.Options{})
		r.add(msg("k", 0))
		pass(10 * time.Second)
		equal(t, "sent while frozen", len(r.Sent()), 0)
		pass(20 * time.Second)
		equal(t, "sent", r.IDs(""), []string{"k/0"})
	})
}

// sleepy is a tracer whose first span takes 15 s to start.
type sleepy struct {
	noop.TracerProvider
	froze *atomic.Bool
}

func (s sleepy) Tracer(string, ...trace.TracerOption) trace.Tracer {
	return sleepyTracer{froze: s.froze}
}

type sleepyTracer struct {
	noop.Tracer
	froze *atomic.Bool
}

func (s sleepyTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if s.froze.CompareAndSwap(false, true) {
		time.Sleep(15 * time.Second) // in a bubble
	}
	return s.Tracer.Start(ctx, name, opts...)
}

func TestRelay_ALaneWithAnOpenCallIsNotGivenAway(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		r.Answer = func(string, *message.Message) error {
			<-release
			return nil
		}
		const keys = 200
		r.start(outbox.Options{Concurrency: keys})
		for k := range keys {
			r.add(msg(fmt.Sprintf("k%d", k), 0))
		}
		pass(time.Second)
		r.start(outbox.Options{})
		pass(time.Minute)
		close(release)
		pass(time.Minute)
		equal(t, "sent, repeats among them", len(r.Sent()), keys)
	})
}
