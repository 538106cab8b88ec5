package workertest_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/pressly/goose/v3"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/kafkasub"
	"github.com/firstcome/firstcome/worker/sqlinbox"
	"github.com/firstcome/firstcome/worker/streamsub"
	"github.com/firstcome/firstcome/worker/workertest"
)

// line is a worker on real servers: each event writes a row to PostgreSQL and a
// key to Redis.
type line struct {
	db      *sql.DB
	redis   *redis.Client
	letters chan worker.Letter

	mu     sync.Mutex
	logged bytes.Buffer
}

func newLine(t *testing.T, postgres *testenv.PostgresServer, server *testenv.RedisServer) *line {
	t.Helper()
	db := prepared(t, postgres.DB(t), "postgres", goose.DialectPostgres)
	exec(t, db, `CREATE TABLE effects (seq bigserial, event_id text NOT NULL, n int NOT NULL)`)
	return &line{
		db: db, letters: make(chan worker.Letter, 1000),
		redis: server.Client(t, func(o *redis.Options) {
			o.DialTimeout, o.ReadTimeout, o.ContextTimeoutEnabled = 500*time.Millisecond, 500*time.Millisecond, true
			o.MaxRetries, o.DialerRetries = -1, 1
		}),
	}
}

func (l *line) Put(_ context.Context, letter worker.Letter) error {
	l.letters <- letter
	return nil
}

func (l *line) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.logged.Write(p)
}

func (l *line) lines(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.logged.String(), text)
}

// start runs a worker whose events would be dead letters a tenth of a second
// after the first failure, if an outage counted.
func (l *line) start(t *testing.T, sub message.Subscriber, topic string) (stop func()) {
	t.Helper()
	inbox, err := sqlinbox.New(l.db, "postgres", nil)
	ok(t, err)
	opts := worker.Options{
		MaxAttempts: 3, Retry: func(int) time.Duration { return 50 * time.Millisecond },
		Timeout: 10 * time.Second, Logger: slog.New(slog.NewTextHandler(l, nil)),
	}
	return l.run(t, sub, inbox, opts, func(w *worker.Worker) error {
		return worker.HandleTx(w, "h", topic, func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
			if _, err := tx.ExecContext(ctx, `INSERT INTO effects (event_id, n) VALUES ($1, $2)`, e.ID, e.Payload.N); err != nil {
				return err
			}
			return l.redis.Set(ctx, topic+e.ID, e.Payload.N, 0).Err()
		})
	})
}

// run runs a worker whose dead letters are the line's.
func (l *line) run(t *testing.T, sub message.Subscriber, inbox worker.Inbox, opts worker.Options, register func(w *worker.Worker) error) (stop func()) {
	t.Helper()
	w, err := worker.New(sub, inbox, l, &opts)
	ok(t, err)
	ok(t, register(w))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	for !w.Ready() {
		time.Sleep(time.Millisecond)
	}
	return stop
}

// await waits until a query's answer is so high; a dead letter ends the test.
func (l *line) await(t *testing.T, query string, want int) {
	t.Helper()
	patience := time.After(2 * time.Minute)
	for n := 0; n < want; {
		select {
		case letter := <-l.letters:
			t.Fatalf("dead letter of class %s: %s", letter.Class, letter.Err)
		case <-patience:
			t.Fatalf("%s: %d, want %d", query, n, want)
		case <-time.After(20 * time.Millisecond): // another server: nothing wakes us
		}
		ok(t, l.db.QueryRowContext(t.Context(), query).Scan(&n))
	}
}

// check waits for all events: each once, none buried.
func (l *line) check(t *testing.T, topic string, events int) {
	t.Helper()
	began := time.Now()
	l.await(t, `SELECT COUNT(DISTINCT event_id) FROM effects`, events)
	t.Logf("all %d events are finished %v after the servers were back", events, time.Since(began).Round(time.Millisecond))
	once(t, l.db, events)
	for n := range events {
		if err := l.redis.Get(t.Context(), fmt.Sprintf("%sevent-%d", topic, n)).Err(); err != nil {
			t.Errorf("event %d: %v", n, err)
		}
	}
	if len(l.letters) > 0 {
		t.Errorf("%d dead letters", len(l.letters))
	}
}

// distinct are events of keys of their own.
func distinct(topic string, n int) *message.Message {
	m := workertest.Event(topic, n)
	m.Metadata.Set(worker.MetaKey, fmt.Sprintf("key-%d", n))
	return m
}

// Hundreds of keys wait at once: the subscriber hands out ahead of
// acknowledgements.
func TestServerAway_EveryEventIsFinishedOnce_NothingIsBuried_AndOneLineTells(t *testing.T) {
	t.Parallel()
	const events, away = 600, 5 * time.Second
	for name, killed := range map[string]func(p *testenv.PostgresServer, r *testenv.RedisServer) testenv.Controls{
		"RedisKilled": func(_ *testenv.PostgresServer, r *testenv.RedisServer) testenv.Controls { return r.Controls },
		"SQLKilled":   func(p *testenv.PostgresServer, _ *testenv.RedisServer) testenv.Controls { return p.Controls },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			postgres, server := testenv.NewPostgres(t), testenv.NewRedis(t, "appendonly yes", "appendfsync always")
			l := newLine(t, postgres, server)
			bus := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 1000}, nil)
			t.Cleanup(func() { _ = bus.Close() })
			stop := l.start(t, bus, "orders")
			for n := range events / 2 {
				ok(t, bus.Publish("orders", distinct("orders", n)))
			}
			await(t, l.db, events/10)
			c := killed(postgres, server)
			c.Kill()
			for n := events / 2; n < events; n++ { // and more come meanwhile
				ok(t, bus.Publish("orders", distinct("orders", n)))
			}
			time.Sleep(away)
			c.Restart()
			l.check(t, "orders", events)
			stop()
			if begins, ends := l.lines("worker: outage;"), l.lines("outage is over"); begins != 1 || ends != 1 {
				t.Errorf("%d lines for its begin, %d for its end:\n%s", begins, ends, l.logged.String())
			}
			if n := l.lines("\n"); n > 6 {
				t.Errorf("%d lines for one outage:\n%s", n, l.logged.String())
			}
		})
	}
}

// Redis is the broker too.
func TestServerAway_WhichIsTheBrokerToo_EveryEventIsFinishedOnce(t *testing.T) {
	t.Parallel()
	const events = 60
	server := testenv.NewRedis(t, "appendonly yes", "appendfsync always")
	l := newLine(t, testenv.Postgres(t), server)
	sub, err := streamsub.New(server.Client(t), "g", &streamsub.Options{ClaimIdle: time.Second})
	ok(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	other, err := streamsub.New(server.Client(t), "g", &streamsub.Options{ClaimIdle: time.Second})
	ok(t, err)
	t.Cleanup(func() { _ = other.Close() })
	publisher, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: server.Client(t)}, nil)
	ok(t, err)
	for n := range events {
		ok(t, publisher.Publish("orders", distinct("orders", n)))
	}
	l.start(t, sub, "orders")
	l.start(t, other, "orders")
	await(t, l.db, events/3)
	server.Kill()
	time.Sleep(4 * time.Second) // longer than ClaimIdle
	server.Restart()
	l.check(t, "orders", events)
}

// An event waits in an outage for longer than a stream's idle limit and than a
// group's session and rebalance; meanwhile another process joins.
func TestServerAway_ForLongerThanTheBrokerWaits_EveryEventIsFinishedOnce(t *testing.T) {
	t.Parallel()
	const events = 30
	eachTransport(t, func(t *testing.T, b transport) {
		t.Parallel()
		postgres := testenv.NewPostgres(t)
		l := newLine(t, postgres, testenv.Redis(t))
		subscriber := func() message.Subscriber {
			var sub message.Subscriber
			var err error
			if b.name == "kafka" {
				sub, err = kafkasub.New([]string{b.addr}, b.topic+"-g", &kafkasub.Options{SessionTimeout: 6 * time.Second, RebalanceTimeout: 6 * time.Second})
			} else {
				sub, err = streamsub.New(redisClient(t, b.addr), "g", &streamsub.Options{ClaimIdle: time.Second})
			}
			ok(t, err)
			t.Cleanup(func() { _ = sub.Close() })
			return sub
		}
		l.start(t, subscriber(), b.topic)
		for n := range events / 2 {
			ok(t, b.publisher.Publish(b.topic, distinct(b.topic, n)))
		}
		await(t, l.db, 3)
		postgres.Kill()
		for n := events / 2; n < events; n++ {
			ok(t, b.publisher.Publish(b.topic, distinct(b.topic, n)))
		}
		time.Sleep(3 * time.Second)
		stop := l.start(t, subscriber(), b.topic)
		time.Sleep(10 * time.Second)
		began := time.Now()
		stop()
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("a stop in the outage took %v", took)
		}
		postgres.Restart()
		l.check(t, b.topic, events)
	})
}

func redisClient(t *testing.T, addr string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = client.Close() })
	return client
}
