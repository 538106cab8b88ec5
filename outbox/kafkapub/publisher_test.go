package kafkapub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/kafkapub"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(8, "orders")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func publisher(t *testing.T, brokers []string, opts *kafkapub.Options) message.Publisher {
	t.Helper()
	if opts == nil {
		opts = &kafkapub.Options{}
	}
	opts.Logger = quiet
	p, err := kafkapub.New(brokers, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func wire(m outbox.Message) *message.Message {
	out := message.NewMessage(m.ID, m.Payload)
	out.Metadata = message.Metadata{outbox.MetadataKey: m.Key, outbox.MetadataTopic: m.Topic, outbox.MetadataFormat: outbox.WireFormat}
	return out
}

// records reads n records of a topic, in the order of each partition.
func records(t *testing.T, brokers []string, topic string, n int) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records", len(out), n)
		}
		out = append(out, fetches.Records()...)
	}
	return out
}

// sent turns records into what the suite checks.
func sent(recs []*kgo.Record) []outboxtest.Sent {
	var out []outboxtest.Sent
	for _, r := range recs {
		s := outboxtest.Sent{Topic: r.Topic, Key: string(r.Key), Payload: string(r.Value)}
		for _, h := range r.Headers {
			if h.Key == kafka.UUIDHeaderKey {
				s.ID = string(h.Value)
			}
		}
		out = append(out, s)
	}
	return out
}

// relay runs a relay from a store in memory until the test ends.
func relay(t *testing.T, p message.Publisher, opts outbox.Options) *outboxtest.Memory {
	t.Helper()
	store := outboxtest.NewMemory()
	opts.Logger = quiet
	r, err := outbox.NewRelay(store, p, []string{"orders", "missing"}, &opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return store
}

func add(t *testing.T, store *outboxtest.Memory, msgs ...outbox.Message) {
	t.Helper()
	if err := store.Add(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, store *outboxtest.Memory, what string, ok func(outbox.Stats) bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var s outbox.Stats
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if s, _ = store.Stats(t.Context()); ok(s) {
			return
		}
	}
	parked, _ := store.Parked(t.Context(), 0, 1)
	t.Fatalf("after half a minute not %s: %+v, parked %+v", what, s, parked)
}

func TestPublish_AnyWatermillSubscriberReadsIt(t *testing.T) {
	c := cluster(t)
	p := publisher(t, c.ListenAddrs(), nil)
	m := outboxtest.Msg("k", 1)
	m.Payload = []byte("raw \x00\xff bytes")
	if err := p.Publish("orders", wire(m)); err != nil {
		t.Fatal(err)
	}
	config := sarama.NewConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	sub, err := kafka.NewSubscriber(kafka.SubscriberConfig{
		Brokers: c.ListenAddrs(), Unmarshaler: kafka.DefaultMarshaler{}, OverwriteSaramaConfig: config}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Close() }()
	messages, err := sub.Subscribe(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	got := <-messages
	got.Ack()
	if got.UUID != "k/1" || string(got.Payload) != string(m.Payload) || got.Metadata[outbox.MetadataKey] != "k" {
		t.Fatalf("got %+v", got)
	}
}

func TestPublish_TheKeyDecidesThePartitionAsJavaHasIt(t *testing.T) {
	c := cluster(t)
	p := publisher(t, c.ListenAddrs(), nil)
	// org.apache.kafka.common.utils.Utils.murmur2, from Kafka's own UtilsTest.
	java := map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	}
	for key := range java {
		if err := p.Publish("orders", wire(outboxtest.Msg(key, 1))); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range records(t, c.ListenAddrs(), "orders", len(java)) {
		if want := (java[string(r.Key)] & 0x7fffffff) % 8; r.Partition != want {
			t.Errorf("key %s is on partition %d, Java puts it on %d", r.Key, r.Partition, want)
		}
	}
}

func TestNew_RefusesWhatWouldBreakThePromise(t *testing.T) {
	if _, err := kafkapub.New(nil, nil); err == nil {
		t.Error("no brokers were accepted")
	}
	if _, err := kafkapub.New([]string{"x:1"}, &kafkapub.Options{User: "u"}); err == nil {
		t.Error("a password without TLS was accepted")
	}
	c := cluster(t)
	acks := sarama.RequiredAcks(0)
	p := publisher(t, c.ListenAddrs(), &kafkapub.Options{Sarama: func(config *sarama.Config) {
		config.Producer.RequiredAcks, config.Producer.Idempotent, config.Version = sarama.NoResponse, false, sarama.V1_0_0_0
	}})
	c.ControlKey(0, func(req kmsg.Request) (kmsg.Response, error, bool) {
		acks = sarama.RequiredAcks(req.(*kmsg.ProduceRequest).Acks)
		return nil, nil, false
	})
	if err := p.Publish("orders", wire(outboxtest.Msg("k", 1))); err != nil {
		t.Fatal(err)
	}
	if acks != sarama.WaitForAll {
		t.Errorf("acks = %d", acks)
	}
}

func TestRelay_ParksATooLargeMessageAndAMissingTopicAndTheRestFlows(t *testing.T) {
	c := cluster(t)
	store := relay(t, publisher(t, c.ListenAddrs(), nil), outbox.Options{MaxAttempts: 2, Backoff: func(int) time.Duration { return time.Millisecond }})
	large := outboxtest.Msg("large", 0)
	large.Payload = make([]byte, 2<<20)
	nowhere := outboxtest.Msg("nowhere", 0)
	nowhere.Topic = "missing"
	add(t, store, large, nowhere)
	for i := range 100 {
		add(t, store, outboxtest.Msg("k", i))
	}
	until(t, store, "two parked and the rest relayed", func(s outbox.Stats) bool { return s.Parked == 2 && s.Relayed == 100 })
	outboxtest.InOrder(t, sent(records(t, c.ListenAddrs(), "orders", 100)))
	parked, _ := store.Parked(t.Context(), 0, 0)
	for _, m := range parked {
		if m.Reason == "" || m.Attempts != 2 {
			t.Errorf("parked without a reason: %+v", m)
		}
	}
}

func TestRelay_ABrokerThatIsAwayAtTheStartParksNothing(t *testing.T) {
	port := testenv.FreePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	store := relay(t, publisher(t, []string{addr}, nil), outbox.Options{MaxAttempts: 1})
	for i := range 20 {
		add(t, store, outboxtest.Msg("k", i))
	}
	p := publisher(t, []string{addr}, nil)
	if err := p.Publish("orders", wire(outboxtest.Msg("k", 0))); err == nil {
		t.Fatal("published to nobody")
	}
	cluster(t, kfake.NumBrokers(1), kfake.Ports(port))
	until(t, store, "all relayed", func(s outbox.Stats) bool { return s.Relayed == 20 && s.Parked == 0 })
	outboxtest.InOrder(t, sent(records(t, []string{addr}, "orders", 20)))
}

func TestRelay_BrokerFaultsLoseNothingAndKeepOrder(t *testing.T) {
	faults := map[string]*kerr.Error{
		"NotLeader": kerr.NotLeaderForPartition, "TooFewReplicas": kerr.NotEnoughReplicas,
		"TooFewReplicasAfterAppend": kerr.NotEnoughReplicasAfterAppend, "TimedOutAfterAppend": kerr.RequestTimedOut,
		"NoLeader": kerr.LeaderNotAvailable, "Storage": kerr.KafkaStorageError,
	}
	for name, answer := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t)
			store := relay(t, publisher(t, c.ListenAddrs(), nil), outbox.Options{MaxAttempts: 1})
			const keys, each = 10, 40
			for n := range each {
				if n == 10 || n == 25 {
					c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: answer, Count: 7})
				}
				for k := range keys {
					add(t, store, outboxtest.Msg(fmt.Sprintf("k%d", k), n))
				}
			}
			until(t, store, "all relayed, none parked", func(s outbox.Stats) bool { return s.Relayed == keys*each && s.Parked == 0 })
			outboxtest.InOrder(t, sent(records(t, c.ListenAddrs(), "orders", keys*each)))
		})
	}
}

func TestRelay_LeadersThatMoveLoseNothingAndKeepOrder(t *testing.T) {
	c := cluster(t)
	store := relay(t, publisher(t, c.ListenAddrs(), nil), outbox.Options{MaxAttempts: 1})
	const keys, each = 10, 60
	for n := range each {
		if n%10 == 5 {
			c.ShufflePartitionLeaders()
		}
		for k := range keys {
			add(t, store, outboxtest.Msg(fmt.Sprintf("k%d", k), n))
		}
	}
	until(t, store, "all relayed, none parked", func(s outbox.Stats) bool { return s.Relayed == keys*each && s.Parked == 0 })
	outboxtest.InOrder(t, sent(records(t, c.ListenAddrs(), "orders", keys*each)))
}

func TestClose_TwiceIsNoErrorAndPublishingAfterwardsIs(t *testing.T) {
	p := publisher(t, cluster(t).ListenAddrs(), nil)
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish("orders", wire(outboxtest.Msg("k", 1))); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Fatal(err)
	}
}

func TestRealKafka_FrozenForAWhileLosesNothingAndKeepsOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Kafka")
	}
	server := testenv.NewKafka(t)
	topic := "orders"
	store := relay(t, publisher(t, server.Brokers(), nil), outbox.Options{MaxAttempts: 5}) // the topic is made by the first message
	const keys, each = 50, 40
	for n := range each {
		for k := range keys {
			add(t, store, outboxtest.Msg(fmt.Sprintf("k%d", k), n))
		}
		if n == each/2 {
			until(t, store, "half relayed", func(s outbox.Stats) bool { return s.Relayed > keys*each/4 })
			server.Stop()
			time.AfterFunc(4*time.Second, server.Cont)
		}
	}
	until(t, store, "all relayed, none parked", func(s outbox.Stats) bool { return s.Relayed == keys*each && s.Parked == 0 })
	outboxtest.InOrder(t, sent(records(t, server.Brokers(), topic, keys*each)))
}
