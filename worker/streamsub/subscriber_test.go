package streamsub_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/streamsub"
	"github.com/firstcome/firstcome/worker/workertest"
)

const patience = 30 * time.Second

// parts is one stream of its own on a server.
type parts struct {
	client    redis.UniversalClient
	publisher message.Publisher
	topic     string
}

func newParts(t *testing.T, client redis.UniversalClient) parts {
	t.Helper()
	publisher, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, nil)
	ok(t, err)
	return parts{client: client, publisher: publisher, topic: testenv.Name(t)}
}

func (p parts) subscriber(t *testing.T, opts *streamsub.Options) *streamsub.Subscriber {
	t.Helper()
	s, err := streamsub.New(p.client, "g", opts)
	ok(t, err)
	t.Cleanup(func() { ok(t, s.Close()) })
	return s
}

func (p parts) publish(t *testing.T, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		ok(t, p.publisher.Publish(p.topic, workertest.Event(p.topic, n)))
	}
}

func (p parts) pending(t *testing.T) int64 {
	t.Helper()
	pending, err := p.client.XPending(t.Context(), p.topic, "g").Result()
	ok(t, err)
	return pending.Count
}

func TestSubscriber(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		workertest.Subscriber(t, func(t *testing.T) workertest.SubscriberParts {
			p := newParts(t, client)
			return workertest.SubscriberParts{
				New: func(t *testing.T, group string) message.Subscriber {
					s, err := streamsub.New(client, group, nil)
					ok(t, err)
					return s
				},
				Publisher: p.publisher,
				Topic:     p.topic,
				PublishRaw: func(t *testing.T, raw string) {
					// Neither a UUID nor readable metadata.
					ok(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: p.topic, Values: map[string]any{"payload": raw, "metadata": "\xc1"}}).Err())
				},
			}
		})
	})
}

func TestEntryThatDoesNotDecode_KeepsItsFields(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		p := newParts(t, client)
		id, err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: p.topic, Values: map[string]any{"user": "ann", "metadata": "\xc1"}}).Result()
		ok(t, err)
		messages, err := p.subscriber(t, nil).Subscribe(t.Context(), p.topic)
		ok(t, err)
		m := receive(t, messages)
		if m.Metadata.Get(worker.MetaUndecodable) == "" || m.Metadata.Get("field.user") != "ann" || m.Metadata.Get("field.metadata") != "\xc1" ||
			m.Metadata.Get(worker.MetaOriginOffset) != id || m.UUID != p.topic+"/"+id {
			t.Errorf("got %q %v", m.UUID, m.Metadata)
		}
	})
}

// The idle limit is shorter than the handler; Watermill's subscriber alone gave
// such a message three times to one consumer.
func TestLiveHandlerSlowerThanTheIdleLimit_KeepsItsEntry(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		p := newParts(t, client)
		opts := &streamsub.Options{ClaimIdle: 300 * time.Millisecond}
		p.publish(t, 0, 1)
		slow, err := p.subscriber(t, opts).Subscribe(t.Context(), p.topic)
		ok(t, err)
		m := receive(t, slow)
		other, err := p.subscriber(t, opts).Subscribe(t.Context(), p.topic)
		ok(t, err)
		select {
		case <-other:
			t.Fatal("stolen by the other consumer")
		case <-slow:
			t.Fatal("delivered again while in hand")
		case <-time.After(5 * 300 * time.Millisecond): // real time: the server's clock decides
		}
		acknowledge(t, m)
		if n := p.pending(t); n != 0 {
			t.Errorf("%d pending after the acknowledgement", n)
		}
	})
}

// A process that dies leaves what it had in hand; the same name takes it over at
// once, long before the idle limit.
func TestRestartUnderTheSameName_TakesOverAtOnce(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		p := newParts(t, client)
		opts := &streamsub.Options{Consumer: "pod-0", ClaimIdle: time.Hour}
		p.publish(t, 0, 50)
		abandon(t, p, "pod-0~dead", 50)
		messages, err := p.subscriber(t, opts).Subscribe(t.Context(), p.topic)
		ok(t, err)
		for n := range 50 {
			m := receive(t, messages)
			if want := workertest.Event(p.topic, n).UUID; m.UUID != want {
				t.Fatalf("got %s, want %s: not in the order of the stream", m.UUID, want)
			}
			acknowledge(t, m)
		}
		consumers, err := client.XInfoConsumers(t.Context(), p.topic, "g").Result()
		ok(t, err)
		if len(consumers) != 1 {
			t.Errorf("consumers %v: the dead one was not removed", consumers)
		}
	})
}

func TestDeadConsumersEntries_AreTakenOverAfterTheIdleLimit(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		p := newParts(t, client)
		p.publish(t, 0, 50)
		abandon(t, p, "other~dead", 50)
		messages, err := p.subscriber(t, &streamsub.Options{ClaimIdle: 200 * time.Millisecond}).Subscribe(t.Context(), p.topic)
		ok(t, err)
		for range 50 {
			acknowledge(t, receive(t, messages))
		}
		if n := p.pending(t); n != 0 {
			t.Errorf("%d still pending", n)
		}
	})
}

func TestCleanStop_HandsBackWhatWasNotBegun(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		p := newParts(t, client)
		p.publish(t, 0, 3)
		first := p.subscriber(t, &streamsub.Options{ClaimIdle: time.Hour})
		messages, err := first.Subscribe(t.Context(), p.topic)
		ok(t, err)
		receive(t, messages) // and never acknowledged; the next is read ahead
		ok(t, first.Close())
		ok(t, first.Close())
		messages, err = p.subscriber(t, &streamsub.Options{ClaimIdle: time.Hour}).Subscribe(t.Context(), p.topic)
		ok(t, err)
		for range 3 {
			acknowledge(t, receive(t, messages))
		}
		if err := client.Ping(t.Context()).Err(); err != nil {
			t.Errorf("the client was closed: %v", err)
		}
	})
}

func TestDeletedGroup_IsMadeAnew_FromTheOldest(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		p := newParts(t, client)
		messages, err := p.subscriber(t, nil).Subscribe(t.Context(), p.topic)
		ok(t, err)
		p.publish(t, 0, 1)
		acknowledge(t, receive(t, messages))
		ok(t, client.Del(t.Context(), p.topic).Err()) // the stream, and its group with it
		p.publish(t, 1, 3)
		for range 2 {
			acknowledge(t, receive(t, messages))
		}
	})
}

func TestAcknowledgement_EndsTheMessagesContext(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		p := newParts(t, client)
		p.publish(t, 0, 1)
		messages, err := p.subscriber(t, nil).Subscribe(t.Context(), p.topic)
		ok(t, err)
		acknowledge(t, receive(t, messages))
		if n := p.pending(t); n != 0 {
			t.Errorf("%d pending", n)
		}
	})
}

// The server has handed the entry out, or has noted its acknowledgement; its
// word is lost.
func TestLostReplies_LoseNoEntry(t *testing.T) {
	server := testenv.Redis(t)
	for _, command := range []string{"xreadgroup", "xack", "xclaim", "xpending"} {
		t.Run(command, func(t *testing.T) {
			dialer := faulty.NewDialer()
			p := newParts(t, server.Client(t))
			s, err := streamsub.New(server.Client(t, func(o *redis.Options) { o.Dialer = dialer.DialContext }), "g",
				&streamsub.Options{ClaimIdle: 300 * time.Millisecond})
			ok(t, err)
			t.Cleanup(func() { ok(t, s.Close()) })
			p.publish(t, 0, 10)
			abandon(t, p, "other~dead", 2)
			fault := dialer.CutReply(1, faulty.Contains(command))
			messages, err := s.Subscribe(t.Context(), p.topic)
			ok(t, err)
			got := map[string]bool{}
			for len(got) < 10 {
				m := receive(t, messages)
				got[m.UUID] = true
				acknowledge(t, m)
			}
			fault.MustFire(t)
			if n := p.pending(t); n != 0 {
				t.Errorf("%d pending", n)
			}
		})
	}
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	client := testenv.Mini(t)
	for name, f := range map[string]func() (*streamsub.Subscriber, error){
		"client": func() (*streamsub.Subscriber, error) { return streamsub.New(nil, "g", nil) },
		"group":  func() (*streamsub.Subscriber, error) { return streamsub.New(client, "", nil) },
		"ClaimIdle": func() (*streamsub.Subscriber, error) {
			return streamsub.New(client, "g", &streamsub.Options{ClaimIdle: 1})
		},
		"Consumer": func() (*streamsub.Subscriber, error) {
			return streamsub.New(client, "g", &streamsub.Options{Consumer: "a~b"})
		},
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	s, err := streamsub.New(client, "g", nil)
	ok(t, err)
	ok(t, s.Close())
	if _, err := s.Subscribe(t.Context(), "t"); err == nil {
		t.Error("subscribed after Close")
	}
}

// abandon receives entries as a consumer that then dies.
func abandon(t *testing.T, p parts, consumer string, n int64) {
	t.Helper()
	err := p.client.XGroupCreateMkStream(t.Context(), p.topic, "g", "0").Err()
	ok(t, err)
	ok(t, p.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{
		Group: "g", Consumer: consumer, Streams: []string{p.topic, ">"}, Count: n,
	}).Err())
}

func receive(t *testing.T, messages <-chan *message.Message) *message.Message {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case m, open := <-messages:
		if !open {
			t.Fatal("the subscription ended")
		}
		return m
	case <-timer.C:
		t.Fatalf("no message for %v", patience)
		return nil
	}
}

// acknowledge waits until the server has it.
func acknowledge(t *testing.T, m *message.Message) {
	t.Helper()
	m.Ack()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-m.Context().Done():
	case <-ctx.Done():
		t.Fatal("the message's context did not end")
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
