package streampub_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/outboxtest"
	"github.com/firstcome/firstcome/outbox/streampub"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wire(m outbox.Message) *message.Message {
	out := message.NewMessage(m.ID, m.Payload)
	out.Metadata = message.Metadata{outbox.MetadataKey: m.Key, outbox.MetadataTopic: m.Topic, outbox.MetadataFormat: outbox.WireFormat}
	return out
}

// entries reads a stream as what was sent.
func entries(t *testing.T, client redis.UniversalClient, stream string) []outboxtest.Sent {
	t.Helper()
	list, err := client.XRange(context.WithoutCancel(t.Context()), stream, "-", "+").Result()
	ok(t, err)
	var sent []outboxtest.Sent
	for _, e := range list {
		msg, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(e.Values)
		ok(t, err)
		sent = append(sent, outboxtest.Sent{ID: msg.UUID, Topic: stream, Key: msg.Metadata[outbox.MetadataKey], Payload: string(msg.Payload)})
	}
	return sent
}

// relay runs a relay from a store in memory, for one topic, until the test ends.
func relay(t *testing.T, client redis.UniversalClient, topic string, opts outbox.Options) *outboxtest.Memory {
	t.Helper()
	p, err := streampub.New(client, nil)
	ok(t, err)
	store := outboxtest.NewMemory()
	opts.Logger = slog.New(slog.DiscardHandler)
	r, err := outbox.NewRelay(store, p, []string{topic}, &opts)
	ok(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		ok(t, <-done)
	})
	return store
}

func add(t *testing.T, store *outboxtest.Memory, topic, key string, n int) {
	t.Helper()
	m := outboxtest.Msg(key, n)
	m.Topic = topic
	ok(t, store.Add(t.Context(), m))
}

func until(t *testing.T, store *outboxtest.Memory, what string, done func(outbox.Stats) bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var s outbox.Stats
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if s, _ = store.Stats(t.Context()); done(s) {
			return
		}
	}
	t.Fatalf("after half a minute not %s: %+v", what, s)
}

func TestPublish_AnyWatermillSubscriberReadsIt(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		topic := testenv.Name(t)
		p, err := streampub.New(client, nil)
		ok(t, err)
		m := outboxtest.Msg("k", 1)
		m.Payload = []byte("raw \x00\xff bytes")
		ok(t, p.Publish(topic, wire(m)))
		sub, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{Client: client, ConsumerGroup: "g", OldestId: "0"}, nil)
		ok(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		messages, err := sub.Subscribe(ctx, topic)
		ok(t, err)
		got := <-messages
		got.Ack()
		if got.UUID != "k/1" || string(got.Payload) != string(m.Payload) || got.Metadata[outbox.MetadataKey] != "k" {
			t.Fatalf("got %+v", got)
		}
	})
}

func TestRelay_DeliversInBatchesInOrder(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		topic := testenv.Name(t)
		store := relay(t, client, topic, outbox.Options{})
		const keys, each = 20, 100
		for n := range each {
			for k := range keys {
				add(t, store, topic, fmt.Sprintf("k%d", k), n)
			}
		}
		until(t, store, "all relayed", func(s outbox.Stats) bool { return s.Relayed == keys*each })
		sent := entries(t, client, topic)
		if len(sent) != keys*each {
			t.Errorf("%d entries", len(sent))
		}
		outboxtest.InOrder(t, sent)
	})
}

func TestRelay_ParksWhatCannotBeAStream(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		topic := testenv.Name(t)
		ok(t, client.Set(t.Context(), topic, "not a stream", 0).Err())
		store := relay(t, client, topic, outbox.Options{MaxAttempts: 2, Backoff: func(int) time.Duration { return time.Millisecond }})
		add(t, store, topic, "k", 0)
		until(t, store, "parked", func(s outbox.Stats) bool { return s.Parked == 1 })
		parked, _ := store.Parked(t.Context(), 0, 0)
		if !strings.Contains(parked[0].Reason, "WRONGTYPE") {
			t.Error(parked[0].Reason)
		}
	})
}

func TestRelay_LostRepliesRepeatMessagesAndKeepOrder(t *testing.T) {
	server := testenv.Redis(t)
	topic := testenv.Name(t)
	dialer := faulty.NewDialer()
	client := server.Client(t, func(o *redis.Options) { o.Dialer, o.MaxRetries = dialer.DialContext, -1 })
	store := relay(t, client, topic, outbox.Options{MaxAttempts: 1})
	const keys, each = 10, 50
	var fault *faulty.Fault
	for n := range each {
		if n == 5 {
			fault = dialer.CutReply(1, faulty.Contains("xadd"))
		}
		for k := range keys {
			add(t, store, topic, fmt.Sprintf("k%d", k), n)
		}
	}
	until(t, store, "all relayed, none parked", func(s outbox.Stats) bool { return s.Relayed == keys*each && s.Parked == 0 })
	fault.MustFire(t)
	outboxtest.InOrder(t, entries(t, server.Client(t), topic))
}

func TestRelay_AFrozenRedisLosesNothing(t *testing.T) {
	server := testenv.NewRedis(t)
	topic := testenv.Name(t)
	client := server.Client(t, func(o *redis.Options) { o.ReadTimeout, o.DialTimeout = time.Second, time.Second })
	store := relay(t, client, topic, outbox.Options{MaxAttempts: 1, MaxMessages: 512})
	const keys, each = 100, 100
	for n := range each {
		for k := range keys {
			add(t, store, topic, fmt.Sprintf("k%d", k), n)
		}
		if n == 10 {
			until(t, store, "something relayed", func(s outbox.Stats) bool { return s.Relayed > 0 })
			server.Stop()
			time.AfterFunc(4*time.Second, server.Cont)
		}
	}
	until(t, store, "all relayed, none parked", func(s outbox.Stats) bool { return s.Relayed == keys*each && s.Parked == 0 })
	outboxtest.InOrder(t, entries(t, client, topic))
}

func TestClose_LeavesTheClientOpen(t *testing.T) {
	client := testenv.Mini(t)
	p, err := streampub.New(client, nil)
	ok(t, err)
	ok(t, p.Close())
	ok(t, p.Close())
	ok(t, client.Ping(t.Context()).Err())
	if err := p.Publish("orders", wire(outboxtest.Msg("k", 0))); err == nil {
		t.Error("a closed publisher publishes")
	}
}
