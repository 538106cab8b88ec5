package testenv_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/firstcome/firstcome/internal/testenv"
)

// newKafka returns a client of the server.
func newKafka(t *testing.T, server *testenv.KafkaServer, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(server.Brokers()...),
		kgo.AllowAutoTopicCreation(),
		kgo.UnknownTopicRetries(-1), // a topic takes a moment to be made
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func produce(t *testing.T, client *kgo.Client, topic, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	record := &kgo.Record{Topic: topic, Key: []byte("key"), Value: []byte(value)}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		t.Fatalf("produce %q: %v", value, err)
	}
}

func consume(t *testing.T, client *kgo.Client, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	for len(got) < len(want) {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("got %q in time, want %q; %v", got, want, fetches.Err())
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestKafka_MakesTopicsOnFirstUseAndServesGroupsAtOnce(t *testing.T) {
	t.Parallel()
	server := testenv.Kafka(t)
	topic := testenv.Name(t)
	produce(t, newKafka(t, server), topic, "one")
	group := newKafka(t, server, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	consume(t, group, "one")
}

func TestKafka_StopContKillRestart(t *testing.T) {
	t.Parallel()
	server := testenv.NewKafka(t, "num.partitions=1")
	topic := testenv.Name(t)
	client := newKafka(t, server)
	produce(t, client, topic, "before")

	server.Stop()
	sent := make(chan error, 1)
	client.Produce(t.Context(), &kgo.Record{Topic: topic, Value: []byte("during")}, func(_ *kgo.Record, err error) { sent <- err })
	select {
	case err := <-sent:
		t.Errorf("a stopped server answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	server.Cont()
	if err := <-sent; err != nil {
		t.Errorf("after Cont: %v", err)
	}

	server.Kill()
	server.Restart()
	produce(t, client, topic, "after")
	consume(t, newKafka(t, server, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), "before", "during", "after")
}
