package workertest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/kafkasub"
	"github.com/firstcome/firstcome/worker/sqlinbox"
	"github.com/firstcome/firstcome/worker/streamsub"
	"github.com/firstcome/firstcome/worker/workertest"
)

func TestMain(m *testing.M) {
	testenv.Main(m, testenv.Role{Name: "worker", Main: workerProcess})
}

// transport is a real broker with one topic.
type transport struct {
	name      string
	addr      string
	topic     string
	publisher message.Publisher
}

func eachTransport(t *testing.T, test func(t *testing.T, b transport)) {
	t.Run("Kafka", func(t *testing.T) { test(t, onKafka(t)) })
	t.Run("RedisStreams", func(t *testing.T) { test(t, onStreams(t)) })
}

func onKafka(t *testing.T) transport {
	t.Helper()
	brokers := testenv.Kafka(t).Brokers()
	config := sarama.NewConfig()
	admin, err := sarama.NewClusterAdmin(brokers, config)
	ok(t, err)
	defer func() { ok(t, admin.Close()) }()
	topic := testenv.Name(t)
	ok(t, admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false))
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	publisher, err := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers: brokers, OverwriteSaramaConfig: config,
		Marshaler: kafka.NewWithPartitioningMarshaler(func(_ string, m *message.Message) (string, error) {
			return m.Metadata.Get(worker.MetaKey), nil
		}),
	}, nil)
	ok(t, err)
	t.Cleanup(func() { ok(t, publisher.Close()) })
	return transport{"kafka", brokers[0], topic, publisher}
}

func onStreams(t *testing.T) transport {
	t.Helper()
	server := testenv.Redis(t)
	publisher, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: server.Client(t)}, nil)
	ok(t, err)
	return transport{"streams", server.Addr(), server.Prefix() + "orders", publisher}
}

// ledger is a database with the inbox and a table of effects in their order.
func ledger(t *testing.T) (url string, db *sql.DB) {
	t.Helper()
	url = testenv.Postgres(t).NewDatabase(t)
	db, err := sql.Open("pgx", url)
	ok(t, err)
	t.Cleanup(func() { _ = db.Close() })
	files, err := sqlinbox.Migrations("postgres")
	ok(t, err)
	p, err := goose.NewProvider(goose.DialectPostgres, db, files)
	ok(t, err)
	_, err = p.Up(t.Context())
	ok(t, err)
	_, err = db.ExecContext(t.Context(), `CREATE TABLE effects (seq bigserial, event_id text NOT NULL, n int NOT NULL)`)
	ok(t, err)
	return url, db
}

// The crash points of a worker process.
const (
	inHandler   = "in the handler, its statements written and not committed"
	afterCommit = "after the commit, before the acknowledgement"
)

// start runs a worker process that stops for good at a crash point.
func (b transport) start(t *testing.T, db, consumer, point, event string) *testenv.Process {
	t.Helper()
	return testenv.Start(t, testenv.Command(t, "worker",
		"TRANSPORT="+b.name, "ADDR="+b.addr, "TOPIC="+b.topic, "DB="+db, "CONSUMER="+consumer, "POINT="+point, "EVENT="+event))
}

func TestKilledInMidHandler_OneEffectPerEvent_InOrder(t *testing.T) {
	eachTransport(t, func(t *testing.T, b transport) {
		const events = 60
		url, db := ledger(t)
		b.publish(t, 0, events)
		// All of one key: Kafka's other partitions run on while one stands.
		for _, c := range []struct{ point, event string }{
			{inHandler, "event-9"}, {afterCommit, "event-21"},
		} {
			p := b.start(t, url, "pod-0", c.point, c.event)
			p.WaitLine("reached")
			p.Kill()
		}
		b.start(t, url, "pod-0", "", "")
		await(t, db, events)
		once(t, db, events)
		inOrder(t, db)
	})
}

func TestWorkersKilledAtRandom_OneEffectPerEvent(t *testing.T) {
	eachTransport(t, func(t *testing.T, b transport) {
		const events = 300
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 1))
		url, db := ledger(t)
		b.publish(t, 0, events)
		workers := [2]*testenv.Process{}
		for i := range workers {
			workers[i] = b.start(t, url, "", "", "")
			workers[i].WaitLine("running")
		}
		for kill := 1; kill <= 3; kill++ {
			await(t, db, kill*events/5+random.IntN(20))
			i := random.IntN(len(workers))
			workers[i].Kill()
			workers[i] = b.start(t, url, "", "", "")
		}
		await(t, db, events)
		once(t, db, events)
	})
}

func (b transport) publish(t *testing.T, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		ok(t, b.publisher.Publish(b.topic, workertest.Event(b.topic, n)))
	}
}

// workerProcess is the child: a worker that inserts one row per event.
func workerProcess() error {
	db, err := sql.Open("pgx", os.Getenv("DB"))
	if err != nil {
		return err
	}
	inbox, err := sqlinbox.New(db, "postgres", nil)
	if err != nil {
		return err
	}
	sub, err := subscriberProcess()
	if err != nil {
		return err
	}
	w, err := worker.New(sub, crashingInbox{inbox}, noLetters{}, nil)
	if err != nil {
		return err
	}
	err = worker.HandleTx(w, "orders", os.Getenv("TOPIC"), func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO effects (event_id, n) VALUES ($1, $2)`, e.ID, e.Payload.N); err != nil {
			return err
		}
		crash(inHandler, e.ID)
		return nil
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("running")
	return w.Run(ctx)
}

func subscriberProcess() (message.Subscriber, error) {
	addr := os.Getenv("ADDR")
	if os.Getenv("TRANSPORT") == "kafka" {
		return kafkasub.New([]string{addr}, os.Getenv("TOPIC")+"-g", &kafkasub.Options{SessionTimeout: 6 * time.Second})
	}
	client := redis.NewClient(&redis.Options{Addr: addr})
	return streamsub.New(client, "g", &streamsub.Options{Consumer: os.Getenv("CONSUMER"), ClaimIdle: time.Second})
}

// crash waits at its point to be killed.
func crash(point, event string) {
	if os.Getenv("POINT") == point && os.Getenv("EVENT") == event {
		fmt.Println("reached")
		select {}
	}
}

type crashingInbox struct{ *sqlinbox.Inbox }

func (i crashingInbox) InTx(ctx context.Context, handler, event string, work func(tx *sql.Tx) error) (bool, error) {
	ran, err := i.Inbox.InTx(ctx, handler, event, work)
	if err == nil {
		crash(afterCommit, event)
	}
	return ran, err
}

// noLetters refuses every dead letter: none is due here.
type noLetters struct{}

func (noLetters) Put(_ context.Context, l worker.Letter) error {
	return errors.New("unexpected dead letter: " + l.Err)
}

// await waits until the effects are so many.
func await(t *testing.T, db *sql.DB, events int) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond) // another process, another server: nothing wakes us
	defer poll.Stop()
	for {
		var n int
		ok(t, db.QueryRowContext(t.Context(), `SELECT COUNT(DISTINCT event_id) FROM effects`).Scan(&n))
		if n >= events {
			return
		}
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%d of %d events took effect", n, events)
		}
	}
}

func once(t *testing.T, db *sql.DB, events int) {
	t.Helper()
	counts := workertest.Effects(t, db)
	for n := range events {
		if id := fmt.Sprintf("event-%d", n); counts[id] != 1 {
			t.Errorf("%s took effect %d times", id, counts[id])
		}
	}
	if len(counts) != events {
		t.Errorf("%d events took effect, want %d", len(counts), events)
	}
}

// inOrder checks that each key's effects stand in the order of its events. The
// suite's events have six keys.
func inOrder(t *testing.T, db *sql.DB) {
	t.Helper()
	var bad sql.NullString
	ok(t, db.QueryRowContext(t.Context(), `SELECT string_agg(event_id, ', ') FROM (
		SELECT event_id, n, max(n) OVER (PARTITION BY n % 6 ORDER BY seq) AS highest FROM effects) AS e WHERE n < highest`).Scan(&bad))
	if strings.TrimSpace(bad.String) != "" {
		t.Errorf("out of order: %s", bad.String)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
