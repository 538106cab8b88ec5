package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/worker"
)

func TestDeadLetter(t *testing.T) {
	// Each of these events ends in the dead letters, and the line goes on.
	for _, c := range []struct {
		name    string
		message func() *message.Message
		handler func(worker.Event[order]) error
		want    worker.Letter
	}{
		{
			name: "UndecodablePayload_GoesThereWhole",
			message: func() *message.Message {
				m := event("1", "k", 1)
				m.Payload = []byte("{\x00 no json")
				m.Metadata.Set("trace", "x")
				m.Metadata.Set(worker.MetaOriginTopic, topic)
				m.Metadata.Set(worker.MetaOriginPartition, "3")
				m.Metadata.Set(worker.MetaOriginOffset, "120")
				return m
			},
			want: worker.Letter{Class: worker.ClassUndecodable, Handler: "h", Attempts: 1, Origin: worker.Origin{Topic: topic, Partition: "3", Offset: "120"}},
		},
		{
			name: "UndecodableEnvelope_GoesThereWithoutAHandler",
			message: func() *message.Message {
				m := event("1", "k", 1)
				m.Metadata.Set(worker.MetaUndecodable, "bad metadata")
				return m
			},
			want: worker.Letter{Class: worker.ClassUndecodable, Attempts: 1, Origin: worker.Origin{Topic: topic}},
		},
		{
			name: "UnknownFormat_GoesThere",
			message: func() *message.Message {
				m := event("1", "k", 1)
				m.Metadata.Set(worker.MetaFormat, "2")
				return m
			},
			want: worker.Letter{Class: worker.ClassFormat, Attempts: 1, Origin: worker.Origin{Topic: topic}},
		},
		{
			name:    "EventWithoutID_GoesThere",
			message: func() *message.Message { return event("", "k", 1) },
			want:    worker.Letter{Class: worker.ClassNoID, Handler: "h", Attempts: 1, Origin: worker.Origin{Topic: topic}},
		},
		{
			name:    "FailingHandler_AfterItsAttempts",
			handler: func(worker.Event[order]) error { return errBroken },
			want:    worker.Letter{Class: worker.ClassFailed, Handler: "h", Attempts: 4, Origin: worker.Origin{Topic: topic}},
		},
		{
			name:    "PanickingHandler_AfterItsAttempts",
			handler: func(worker.Event[order]) error { panic("oh") },
			want:    worker.Letter{Class: worker.ClassPanic, Handler: "h", Attempts: 4, Origin: worker.Origin{Topic: topic}},
		},
		{
			name:    "Stop_AtOnce",
			handler: func(worker.Event[order]) error { return worker.Stop(errBroken) },
			want:    worker.Letter{Class: worker.ClassStopped, Handler: "h", Attempts: 1, Origin: worker.Origin{Topic: topic}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, worker.Options{MaxAttempts: 4})
				var did log
				must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
					if e.ID == "next" || c.handler == nil {
						did.add(e.ID)
						return nil
					}
					return c.handler(e)
				}))
				b.start(t)
				bad := event("1", "k", 1)
				if c.message != nil {
					bad = c.message()
				}
				b.broker.send(bad, event("next", "k", 2))
				time.Sleep(time.Minute)
				got := b.letters.get()
				if len(got) != 1 {
					t.Fatalf("%d dead letters, want 1", len(got))
				}
				l := got[0]
				if l.Class != c.want.Class || l.Handler != c.want.Handler || l.Attempts != c.want.Attempts || l.Origin != c.want.Origin {
					t.Errorf("got %+v, want %+v", l, c.want)
				}
				if l.Topic != topic || l.EventID != bad.UUID || l.Key != "k" || string(l.Payload) != string(bad.Payload) ||
					len(l.Metadata) != len(bad.Metadata) || l.Err == "" || l.At.IsZero() {
					t.Errorf("the letter is not whole: %+v", l)
				}
				equalStrings(t, "the next of the key", did.get(), "next")
				if n := len(b.broker.ackedIDs()); n != 2 {
					t.Errorf("acknowledged %d, want 2", n)
				}
			})
		})
	}

	t.Run("PlainWatermillMessage_IsHandled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				did.add(e.ID + e.Key)
				return nil
			}))
			b.start(t)
			b.broker.send(message.NewMessage("1", []byte(`{"n":1}`)))
			synctest.Wait()
			equalStrings(t, "handled", did.get(), "1")
		})
	})

	t.Run("NoPlaceForTheLetter_TheSourceIsNotAcknowledged_AndTheKeyWaits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			b.letters.setFail(errBroken)
			var did log
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				did.add(e.ID)
				if e.ID == "A1" {
					return worker.Stop(errBroken)
				}
				return nil
			}))
			b.start(t)
			b.broker.send(event("A1", "A", 1), event("A2", "A", 2), event("B1", "B", 3))
			time.Sleep(time.Hour)
			equalStrings(t, "acknowledged", b.broker.ackedIDs(), "B1")
			b.letters.setFail(nil)
			time.Sleep(2 * time.Second)
			equalStrings(t, "acknowledged", b.broker.ackedIDs(), "A1", "A2", "B1")
			if n := len(b.letters.get()); n != 1 {
				t.Fatalf("%d dead letters, want 1", n)
			}
		})
	})

	t.Run("RequeuedLetter_RunsAfterTheKeysLaterEvents", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{})
			var did log
			mended := false
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				if e.ID == "A1" && !mended {
					return worker.Stop(errBroken)
				}
				did.add(e.ID)
				return nil
			}))
			b.start(t)
			b.broker.send(event("A1", "A", 1), event("A2", "A", 2))
			synctest.Wait()
			mended = true
			b.broker.send(event("A3", "A", 3), event("A1", "A", 1)) // requeued: not marked, so it runs
			synctest.Wait()
			equalStrings(t, "order", did.get(), "A2", "A3", "A1")
		})
	})

	t.Run("Later_CountsNoAttempt_AndHoldsTheKey", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, worker.Options{MaxAttempts: 2})
			var did log
			n := 0
			must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
				if n++; e.ID == "A1" && n <= 20 {
					if e.Attempt != 1 {
						t.Errorf("attempt %d, want 1", e.Attempt)
					}
					return worker.Later(time.Minute)
				}
				did.add(e.ID)
				return nil
			}))
			b.start(t)
			b.broker.send(event("A1", "A", 1), event("A2", "A", 2))
			time.Sleep(19 * time.Minute)
			equalStrings(t, "before its time", did.get())
			time.Sleep(2 * time.Minute)
			equalStrings(t, "after it", did.get(), "A1", "A2")
		})
	})
}

type publisher struct {
	topic string
	msg   *message.Message
	fail  error
}

func (p *publisher) Publish(topic string, msgs ...*message.Message) error {
	p.topic, p.msg = topic, msgs[0]
	return p.fail
}
func (p *publisher) Close() error { return nil }

func TestDeadLetterTo(t *testing.T) {
	p := &publisher{}
	dead := worker.DeadLetterTo(p)
	letter := worker.Letter{
		Handler: "h", Topic: topic, EventID: "1", Key: "k", Payload: []byte{0, 255},
		Metadata: map[string]string{"a": "b"}, Class: worker.ClassPanic, Err: "panic: oh", Attempts: 3,
		Origin: worker.Origin{Topic: topic, Partition: "3", Offset: "120"}, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	must(t, dead.Put(t.Context(), letter))
	if p.topic != topic+".dead" || p.msg.UUID != "1" || string(p.msg.Payload) != "\x00\xff" {
		t.Fatalf("published %s to %s", p.msg.UUID, p.topic)
	}
	for k, want := range map[string]string{
		"a": "b", worker.MetaKey: "k", worker.MetaDeadHandler: "h", worker.MetaDeadClass: "panic", worker.MetaDeadError: "panic: oh",
		worker.MetaDeadAttempts: "3", worker.MetaDeadAt: "2026-01-02T03:04:05Z",
		worker.MetaDeadTopic: topic, worker.MetaDeadPartition: "3", worker.MetaDeadOffset: "120",
	} {
		if got := p.msg.Metadata.Get(k); got != want {
			t.Errorf("metadata %s: got %q, want %q", k, got, want)
		}
	}
	p.fail = errBroken
	if err := dead.Put(t.Context(), letter); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the publisher's error", err)
	}
}

func TestDeadLetter_IsLoggedAsAnError_WithItsIDClassAndText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{MaxAttempts: 2})
		must(t, worker.Handle(b.Worker, "h", topic, func(context.Context, worker.Event[order]) error { return errBroken }))
		b.start(t)
		b.broker.send(event("order-7", "k", 1))
		time.Sleep(time.Minute)
		must(t, b.stop())
		for line := range strings.Lines(b.logged.String()) {
			if strings.Contains(line, "dead letter") {
				for _, part := range []string{"level=ERROR", "event=order-7", "class=failed", "err=broken", "attempts=2"} {
					if !strings.Contains(line, part) {
						t.Errorf("%s is missing in: %s", part, line)
					}
				}
				return
			}
		}
		t.Errorf("no line of the dead letter:\n%s", b.logged.String())
	})
}

func TestLogs_HoldNeitherPayloadsNorKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, worker.Options{MaxAttempts: 2})
		must(t, worker.Handle(b.Worker, "h", topic, func(_ context.Context, e worker.Event[order]) error {
			switch e.Payload.N {
			case 1:
				return errBroken
			default:
				panic(e)
			}
		}))
		b.start(t)
		bad := event("3", "secretkey", 3)
		bad.Payload = []byte(`{"n":987654321987654321987654321}`)
		b.broker.send(event("1", "secretkey", 1), event("2", "secretkey", 4242424242), bad)
		time.Sleep(time.Minute)
		must(t, b.stop())
		logged := b.logged.String()
		if len(b.letters.get()) != 3 || !strings.Contains(logged, "handler panicked") {
			t.Fatalf("want three dead letters and a panic logged; log:\n%s", logged)
		}
		for _, secret := range []string{"secretkey", "4242424242", "987654321"} {
			if strings.Contains(logged, secret) {
				t.Errorf("the log holds %q:\n%s", secret, logged)
			}
		}
	})
}
