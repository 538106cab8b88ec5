package kafkasub_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/kafkasub"
	"github.com/firstcome/firstcome/worker/workertest"
)

const (
	patience   = 60 * time.Second
	partitions = 3
)

// eachKafka runs a test on the stand-in and on Apache Kafka.
func eachKafka(t *testing.T, test func(t *testing.T, brokers []string)) {
	t.Helper()
	t.Run("Kfake", func(t *testing.T) {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		ok(t, err)
		t.Cleanup(cluster.Close)
		test(t, cluster.ListenAddrs())
	})
	t.Run("Kafka", func(t *testing.T) { test(t, testenv.Kafka(t).Brokers()) })
}

// parts is one topic of its own on a broker.
type parts struct {
	brokers   []string
	admin     sarama.ClusterAdmin
	publisher message.Publisher
	topic     string
}

func newParts(t *testing.T, brokers []string) parts {
	t.Helper()
	config := sarama.NewConfig()
	admin, err := sarama.NewClusterAdmin(brokers, config)
	ok(t, err)
	t.Cleanup(func() { ok(t, admin.Close()) })
	p := parts{brokers: brokers, admin: admin, topic: testenv.Name(t)}
	ok(t, admin.CreateTopic(p.topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false))
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	publisher, err := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers:               brokers,
		OverwriteSaramaConfig: config,
		Marshaler: kafka.NewWithPartitioningMarshaler(func(_ string, m *message.Message) (string, error) {
			return m.Metadata.Get(worker.MetaKey), nil
		}),
	}, nil)
	ok(t, err)
	t.Cleanup(func() { ok(t, publisher.Close()) })
	p.publisher = publisher
	return p
}

func (p parts) subscriber(t *testing.T, opts *kafkasub.Options) *kafkasub.Subscriber {
	t.Helper()
	s, err := kafkasub.New(p.brokers, p.topic+"-g", opts)
	ok(t, err)
	t.Cleanup(func() { ok(t, s.Close()) })
	return s
}

// committed is the group's offset of a partition, -1 where there is none.
func (p parts) committed(t *testing.T, partition int32) int64 {
	t.Helper()
	offsets, err := p.admin.ListConsumerGroupOffsets(p.topic+"-g", map[string][]int32{p.topic: {partition}})
	ok(t, err)
	return offsets.GetBlock(p.topic, partition).Offset
}

// picky fails, one way or the other, on values that begin with a zero byte.
type picky struct{ kafka.DefaultMarshaler }

func (p picky) Unmarshal(record *sarama.ConsumerMessage) (*message.Message, error) {
	switch {
	case strings.HasPrefix(string(record.Value), "\x00panic"):
		panic("cannot read this")
	case strings.HasPrefix(string(record.Value), "\x00"):
		return nil, errors.New("cannot read this")
	}
	return p.DefaultMarshaler.Unmarshal(record)
}

func (p parts) produce(t *testing.T, record *sarama.ProducerMessage) (partition int32, offset int64) {
	t.Helper()
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer(p.brokers, config)
	ok(t, err)
	defer func() { ok(t, producer.Close()) }()
	record.Topic = p.topic
	partition, offset, err = producer.SendMessage(record)
	ok(t, err)
	return partition, offset
}

func TestSubscriber(t *testing.T) {
	eachKafka(t, func(t *testing.T, brokers []string) {
		workertest.Subscriber(t, func(t *testing.T) workertest.SubscriberParts {
			p := newParts(t, brokers)
			return workertest.SubscriberParts{
				New: func(t *testing.T, group string) message.Subscriber {
					s, err := kafkasub.New(brokers, p.topic+"-"+group, &kafkasub.Options{Unmarshaler: picky{}})
					ok(t, err)
					return s
				},
				Publisher: p.publisher,
				Topic:     p.topic,
				PublishRaw: func(t *testing.T, raw string) {
					p.produce(t, &sarama.ProducerMessage{Value: sarama.StringEncoder(raw)})
				},
			}
		})
	})
}

func TestUnreadableRecord_KeepsBytesKeyHeadersAndPlace(t *testing.T) {
	eachKafka(t, func(t *testing.T, brokers []string) {
		p := newParts(t, brokers)
		for _, value := range []string{"\x00bytes", "\x00panic"} {
			partition, offset := p.produce(t, &sarama.ProducerMessage{
				Key: sarama.StringEncoder("k"), Value: sarama.StringEncoder(value),
				Headers: []sarama.RecordHeader{{Key: []byte("a"), Value: []byte("b")}},
			})
			s, err := kafkasub.New(brokers, p.topic+"-"+strconv.Itoa(len(value)), &kafkasub.Options{Unmarshaler: picky{}})
			ok(t, err)
			messages, err := s.Subscribe(t.Context(), p.topic)
			ok(t, err)
			var m *message.Message
			for m == nil || string(m.Payload) != value {
				m = receive(t, messages)
				m.Ack()
			}
			want := map[string]string{
				"a": "b", worker.MetaKey: "k", worker.MetaOriginTopic: p.topic,
				worker.MetaOriginPartition: strconv.Itoa(int(partition)), worker.MetaOriginOffset: strconv.FormatInt(offset, 10),
			}
			for k, v := range want {
				if m.Metadata.Get(k) != v {
					t.Errorf("metadata %s: got %q, want %q", k, m.Metadata.Get(k), v)
				}
			}
			if m.Metadata.Get(worker.MetaUndecodable) == "" || !strings.HasPrefix(m.UUID, p.topic+"/") {
				t.Errorf("got %q %v", m.UUID, m.Metadata)
			}
			ok(t, s.Close())
		}
	})
}

func TestForeignRecord_HasAnIDOfItsOwn_TheSameAtEachDelivery(t *testing.T) {
	eachKafka(t, func(t *testing.T, brokers []string) {
		p := newParts(t, brokers)
		for range 2 {
			p.produce(t, &sarama.ProducerMessage{Key: sarama.StringEncoder("k"), Value: sarama.StringEncoder("same")})
		}
		seen := map[string]int{}
		for _, group := range []string{"a", "b"} {
			s, err := kafkasub.New(brokers, p.topic+group, nil)
			ok(t, err)
			messages, err := s.Subscribe(t.Context(), p.topic)
			ok(t, err)
			for range 2 {
				m := receive(t, messages)
				if m.Metadata.Get(worker.MetaUndecodable) != "" || m.Metadata.Get(worker.MetaKey) != "k" {
					t.Errorf("metadata: %v", m.Metadata)
				}
				seen[m.UUID]++
				m.Ack()
			}
			ok(t, s.Close())
		}
		if len(seen) != 2 {
			t.Errorf("IDs over two deliveries of two records: %v", seen)
		}
	})
}

func TestOffset_NeverPassesAnUnfinishedMessage(t *testing.T) {
	eachKafka(t, func(t *testing.T, brokers []string) {
		p := newParts(t, brokers)
		var partition int32
		for range 10 {
			partition, _ = p.produce(t, &sarama.ProducerMessage{Key: sarama.StringEncoder("k"), Value: sarama.StringEncoder("v")})
		}
		s := p.subscriber(t, nil)
		messages, err := s.Subscribe(t.Context(), p.topic)
		ok(t, err)
		for range 5 {
			acknowledge(t, receive(t, messages))
		}
		receive(t, messages) // offset 5: in hand, and then the process dies
		if got := p.committed(t, partition); got > 5 {
			t.Errorf("committed %d, past what was finished", got)
		}
		ok(t, s.Close())
		if got := p.committed(t, partition); got != 5 {
			t.Errorf("committed %d after Close, want 5", got)
		}
		messages, err = p.subscriber(t, nil).Subscribe(t.Context(), p.topic)
		ok(t, err)
		if m := receive(t, messages); m.Metadata.Get(worker.MetaOriginOffset) != "5" {
			t.Errorf("the next process begins at %s, want 5", m.Metadata.Get(worker.MetaOriginOffset))
		}
	})
}

// The second worker joins while a handler of the first is at work. The message
// is finished once, whoever gets it.
func TestRebalanceInMidHandler_OneEffect(t *testing.T) {
	eachKafka(t, func(t *testing.T, brokers []string) {
		p := newParts(t, brokers)
		for n := range 30 {
			ok(t, p.publisher.Publish(p.topic, workertest.Event(p.topic, n)))
		}
		first, err := p.subscriber(t, nil).Subscribe(t.Context(), p.topic)
		ok(t, err)
		held := receive(t, first)
		second, err := p.subscriber(t, nil).Subscribe(t.Context(), p.topic)
		ok(t, err)
		done := map[string]bool{} // an inbox
		deliveries := 0
		finish := func(m *message.Message) {
			deliveries++
			done[m.UUID] = true
			m.Ack()
		}
		finish(held) // its partition may go to the second now
		timer := time.NewTimer(patience)
		defer timer.Stop()
		for len(done) < 30 {
			select {
			case m := <-first:
				finish(m)
			case m := <-second:
				finish(m)
			case <-timer.C:
				t.Fatalf("%d of 30 after %v", len(done), patience)
			}
		}
		if repeats := deliveries - 30; repeats > partitions {
			t.Errorf("%d repeats: more than was in flight", repeats)
		}
	})
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	brokers := []string{"localhost:1"}
	for name, f := range map[string]func() (*kafkasub.Subscriber, error){
		"brokers": func() (*kafkasub.Subscriber, error) { return kafkasub.New(nil, "g", nil) },
		"group":   func() (*kafkasub.Subscriber, error) { return kafkasub.New(brokers, "", nil) },
		"SessionTimeout": func() (*kafkasub.Subscriber, error) {
			return kafkasub.New(brokers, "g", &kafkasub.Options{SessionTimeout: 1})
		},
		"CommitEvery": func() (*kafkasub.Subscriber, error) {
			return kafkasub.New(brokers, "g", &kafkasub.Options{CommitEvery: 1})
		},
		"RebalanceTimeout": func() (*kafkasub.Subscriber, error) {
			return kafkasub.New(brokers, "g", &kafkasub.Options{RebalanceTimeout: 1})
		},
		"Configure": func() (*kafkasub.Subscriber, error) {
			return kafkasub.New(brokers, "g", &kafkasub.Options{Configure: func(c *sarama.Config) { c.Net.DialTimeout = -1 }})
		},
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
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

// acknowledge waits until the offset is marked.
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
