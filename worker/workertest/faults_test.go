package workertest_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	_ "github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
	"github.com/redis/go-redis/v9"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqlinbox"
	"github.com/firstcome/firstcome/worker/workertest"
)

// What real servers say when they are away or in each other's way, and what the
// worker makes of it: the outcome of the attempt, and whether it counted.

// met is what a worker made of an event whose first attempt fails.
type met struct {
	called   bool
	err      error // of that attempt, where the handler was called
	second   int   // the number of the next attempt
	outcomes map[string]int64
}

// meet runs one event through a worker. fault is the handler's first attempt, the
// second succeeds.
func meet(t *testing.T, inbox worker.Inbox, opts worker.Options, register func(w *worker.Worker, m *met) error) met {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	opts.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	opts.Retry = func(int) time.Duration { return 50 * time.Millisecond }
	bus := gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, nil)
	w, err := worker.New(bus, inbox, noLetters{}, &opts)
	ok(t, err)
	var m met
	ok(t, register(w, &m))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	for !w.Ready() {
		time.Sleep(time.Millisecond)
	}
	ok(t, bus.Publish("orders", workertest.Event("orders", 1)))
	cancel()
	running.Wait()
	ok(t, bus.Close())
	m.outcomes = outcomes(t, reader)
	return m
}

func outcomes(t *testing.T, reader *sdkmetric.ManualReader) map[string]int64 {
	t.Helper()
	var got metricdata.ResourceMetrics
	ok(t, reader.Collect(context.Background(), &got))
	found := map[string]int64{}
	for _, scope := range got.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != "firstcome.worker.attempts" {
				continue
			}
			for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
				outcome, _ := p.Attributes.Value("outcome")
				found[outcome.AsString()] += p.Value
			}
		}
	}
	return found
}

// meetInTx is meet with a handler in the inbox's transaction.
func meetInTx(t *testing.T, db *sql.DB, dialect string, tx *sql.TxOptions, fault func(ctx context.Context, tx *sql.Tx) error) met {
	t.Helper()
	inbox, err := sqlinbox.New(db, dialect, &sqlinbox.Options{TxOptions: tx})
	ok(t, err)
	return meet(t, inbox, worker.Options{}, func(w *worker.Worker, m *met) error {
		return worker.HandleTx(w, "h", "orders", func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
			if m.called {
				m.second = e.Attempt
				return nil
			}
			m.called = true
			m.err = fault(ctx, tx)
			return m.err
		})
	})
}

// check compares what was met with what should be: outage and contention count
// nothing.
func (m met) check(t *testing.T, outcome, text string) {
	t.Helper()
	if m.err == nil || !strings.Contains(m.err.Error(), text) {
		t.Fatalf("the server said %v, want an error with %q: the fault was not met", m.err, text)
	}
	second := 1
	if outcome == "failed" {
		second = 2
	}
	if m.outcomes[outcome] == 0 || m.outcomes["done"] != 1 || len(m.outcomes) != 2 || m.second != second {
		t.Errorf("%v: outcomes %v, the next attempt was number %d; want %s and %d", m.err, m.outcomes, m.second, outcome, second)
	}
}

// prepared is a database with the inbox and two rows to fight over.
func prepared(t *testing.T, db *sql.DB, dialect string, g goose.Dialect) *sql.DB {
	t.Helper()
	files, err := sqlinbox.Migrations(dialect)
	ok(t, err)
	p, err := goose.NewProvider(g, db, files)
	ok(t, err)
	_, err = p.Up(t.Context())
	ok(t, err)
	exec(t, db, `CREATE TABLE totals (id int PRIMARY KEY, n int NOT NULL)`, `INSERT INTO totals VALUES (1, 0), (2, 0)`)
	return db
}

func exec(t *testing.T, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, statements ...string,
) {
	t.Helper()
	for _, s := range statements {
		_, err := db.ExecContext(context.WithoutCancel(t.Context()), s)
		ok(t, err)
	}
}

func run(ctx context.Context, tx *sql.Tx, statements ...string) error {
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("in the handler: %w", err)
		}
	}
	return nil
}

const (
	touch1 = `UPDATE totals SET n = n + 1 WHERE id = 1`
	touch2 = `UPDATE totals SET n = n + 1 WHERE id = 2`
)

func TestPostgreSQL_ItsFaultsAreToldApart(t *testing.T) {
	open := func(t *testing.T) *sql.DB {
		return prepared(t, testenv.Postgres(t).DB(t), "postgres", goose.DialectPostgres)
	}
	t.Run("BackendTerminated_57P01", func(t *testing.T) {
		db := open(t)
		meetInTx(t, db, "postgres", nil, func(ctx context.Context, tx *sql.Tx) error {
			var pid int
			ok(t, tx.QueryRowContext(ctx, `SELECT pg_backend_pid()`).Scan(&pid))
			exec(t, db, fmt.Sprintf(`SELECT pg_terminate_backend(%d, 5000)`, pid))
			return run(ctx, tx, touch1)
		}).check(t, "outage", "")
	})
	t.Run("SerializationFailure_40001", func(t *testing.T) {
		db := open(t)
		meetInTx(t, db, "postgres", &sql.TxOptions{Isolation: sql.LevelSerializable}, func(ctx context.Context, tx *sql.Tx) error {
			var n int
			ok(t, tx.QueryRowContext(ctx, `SELECT n FROM totals WHERE id = 1`).Scan(&n))
			exec(t, db, touch1)
			return run(ctx, tx, touch1)
		}).check(t, "contention", "40001")
	})
	t.Run("Deadlock_40P01", func(t *testing.T) {
		db := open(t)
		var other sync.WaitGroup
		meetInTx(t, db, "postgres", nil, func(ctx context.Context, tx *sql.Tx) error {
			ok(t, run(ctx, tx, `SET LOCAL deadlock_timeout = '50ms'`, touch1))
			second, err := db.BeginTx(ctx, nil)
			ok(t, err)
			ok(t, run(ctx, second, `SET LOCAL deadlock_timeout = '60s'`, touch2))
			other.Go(func() {
				_ = run(context.WithoutCancel(ctx), second, touch1)
				_ = second.Rollback()
			})
			return run(ctx, tx, touch2)
		}).check(t, "contention", "40P01")
		other.Wait()
	})
	t.Run("LockNotAvailable_55P03", func(t *testing.T) {
		db := open(t)
		second, err := db.BeginTx(t.Context(), nil)
		ok(t, err)
		ok(t, run(t.Context(), second, touch1))
		meetInTx(t, db, "postgres", nil, func(ctx context.Context, tx *sql.Tx) error {
			return run(ctx, tx, `SET LOCAL lock_timeout = '20ms'`, touch1)
		}).check(t, "contention", "55P03")
		ok(t, second.Rollback())
	})
	t.Run("StatementTimeout_57014_IsAFailure", func(t *testing.T) {
		meetInTx(t, open(t), "postgres", nil, func(ctx context.Context, tx *sql.Tx) error {
			return run(ctx, tx, `SET LOCAL statement_timeout = '20ms'`, `SELECT pg_sleep(5)`)
		}).check(t, "failed", "57014")
	})
	t.Run("ViolatedConstraint_23505_IsAFailure", func(t *testing.T) {
		meetInTx(t, open(t), "postgres", nil, func(ctx context.Context, tx *sql.Tx) error {
			return run(ctx, tx, `INSERT INTO totals VALUES (1, 1)`)
		}).check(t, "failed", "23505")
	})
	t.Run("Killed_InTheMidstOfATransaction", func(t *testing.T) {
		server := testenv.NewPostgres(t)
		db := prepared(t, server.DB(t), "postgres", goose.DialectPostgres)
		meetInTx(t, db, "postgres", nil, func(ctx context.Context, tx *sql.Tx) error {
			server.Kill()
			defer server.Restart()
			return run(ctx, tx, touch1)
		}).check(t, "outage", "")
	})
	t.Run("Killed_BeforeTheCommit", func(t *testing.T) {
		server := testenv.NewPostgres(t)
		db := prepared(t, server.DB(t), "postgres", goose.DialectPostgres)
		inbox, err := sqlinbox.New(db, "postgres", nil)
		ok(t, err)
		calls := 0
		m := meet(t, inbox, worker.Options{}, func(w *worker.Worker, _ *met) error {
			return worker.HandleTx(w, "h", "orders", func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
				if calls++; e.Attempt != 1 {
					t.Errorf("attempt %d", e.Attempt)
				}
				if calls == 1 { // and then claims success
					server.Kill()
					server.Restart()
				}
				return nil
			})
		})
		if m.outcomes["outage"] == 0 || m.outcomes["done"] != 1 || len(m.outcomes) != 2 {
			t.Errorf("outcomes %v", m.outcomes)
		}
	})
}

func TestMariaDB_ItsFaultsAreToldApart(t *testing.T) {
	open := func(t *testing.T) *sql.DB {
		return prepared(t, testenv.MariaDB(t).DB(t), "mysql", goose.DialectMySQL)
	}
	t.Run("Deadlock_1213", func(t *testing.T) {
		db := open(t)
		exec(t, db, `INSERT INTO totals SELECT seq, 0 FROM seq_3_to_200`)
		var other sync.WaitGroup
		meetInTx(t, db, "mysql", nil, func(ctx context.Context, tx *sql.Tx) error {
			ok(t, run(ctx, tx, touch1))
			second, err := db.BeginTx(ctx, nil)
			ok(t, err)
			// The transaction that changed more survives.
			ok(t, run(ctx, second, touch2, `UPDATE totals SET n = n + 1 WHERE id > 2`))
			other.Go(func() {
				_ = run(context.WithoutCancel(ctx), second, touch1)
				_ = second.Rollback()
			})
			time.Sleep(200 * time.Millisecond) // it waits by then; nothing tells
			return run(ctx, tx, touch2)
		}).check(t, "contention", "1213")
		other.Wait()
	})
	t.Run("LockWaitTimeout_1205", func(t *testing.T) {
		db := open(t)
		second, err := db.BeginTx(t.Context(), nil)
		ok(t, err)
		ok(t, run(t.Context(), second, touch1))
		meetInTx(t, db, "mysql", nil, func(ctx context.Context, tx *sql.Tx) error {
			return run(ctx, tx, `SET SESSION innodb_lock_wait_timeout = 1`, touch1)
		}).check(t, "contention", "1205")
		ok(t, second.Rollback())
	})
	t.Run("ConnectionKilled", func(t *testing.T) {
		db := open(t)
		meetInTx(t, db, "mysql", nil, func(ctx context.Context, tx *sql.Tx) error {
			var id int
			ok(t, tx.QueryRowContext(ctx, `SELECT CONNECTION_ID()`).Scan(&id))
			exec(t, db, fmt.Sprintf(`KILL CONNECTION %d`, id))
			return run(ctx, tx, touch1, touch2)
		}).check(t, "outage", "")
	})
	t.Run("StatementTimeout_1969_IsAFailure", func(t *testing.T) {
		meetInTx(t, open(t), "mysql", nil, func(ctx context.Context, tx *sql.Tx) error {
			return run(ctx, tx, `SET STATEMENT max_statement_time = 0.05 FOR SELECT COUNT(*) FROM seq_1_to_100000 AS a, seq_1_to_100000 AS b WHERE a.seq + b.seq = 7`)
		}).check(t, "failed", "1969")
	})
}

func TestSQLite_BusyIsContention_AlsoInTheInbox(t *testing.T) {
	file := "file:" + filepath.Join(t.TempDir(), "w.db") + "?_pragma=busy_timeout(20)&_pragma=journal_mode(WAL)"
	db, err := sql.Open("sqlite", file)
	ok(t, err)
	t.Cleanup(func() { _ = db.Close() })
	prepared(t, db, "sqlite", goose.DialectSQLite3)
	writer, err := db.Conn(t.Context())
	ok(t, err)
	exec(t, writer, `BEGIN IMMEDIATE`)
	time.AfterFunc(300*time.Millisecond, func() { exec(t, writer, `ROLLBACK`); _ = writer.Close() })
	inbox, err := sqlinbox.New(db, "sqlite", nil)
	ok(t, err)
	m := meet(t, inbox, worker.Options{}, func(w *worker.Worker, m *met) error {
		return worker.HandleTx(w, "h", "orders", func(_ context.Context, _ *sql.Tx, e worker.Event[workertest.Job]) error {
			m.second = e.Attempt
			return nil
		})
	})
	if m.outcomes["contention"] == 0 || m.outcomes["done"] != 1 || m.second != 1 {
		t.Errorf("outcomes %v, attempt %d", m.outcomes, m.second)
	}
}

func TestRedis_ItsFaultsAreToldApart(t *testing.T) {
	set := func(ctx context.Context, c *redis.Client) error { return c.Set(ctx, "k", "v", 0).Err() }
	admin := func(t *testing.T, s *testenv.RedisServer, args ...any) {
		t.Helper()
		ok(t, s.Client(t).Do(context.WithoutCancel(t.Context()), args...).Err())
	}
	for _, c := range []struct {
		name, outcome, text string
		conf                []string
		begin, end          func(t *testing.T, s *testenv.RedisServer)
		call                func(ctx context.Context, c *redis.Client) error
	}{
		{name: "Killed", outcome: "outage", text: "refused",
			begin: func(_ *testing.T, s *testenv.RedisServer) { s.Kill() },
			end:   func(_ *testing.T, s *testenv.RedisServer) { s.Restart() }},
		{name: "Frozen", outcome: "outage", text: "timeout",
			begin: func(_ *testing.T, s *testenv.RedisServer) { s.Stop() },
			end:   func(_ *testing.T, s *testenv.RedisServer) { s.Cont() }},
		{name: "READONLY", outcome: "outage", text: "READONLY",
			begin: func(t *testing.T, s *testenv.RedisServer) { admin(t, s, "REPLICAOF", "127.0.0.1", "1") },
			end:   func(t *testing.T, s *testenv.RedisServer) { admin(t, s, "REPLICAOF", "NO", "ONE") }},
		{name: "MASTERDOWN", outcome: "outage", text: "MASTERDOWN", conf: []string{"replica-serve-stale-data no"},
			begin: func(t *testing.T, s *testenv.RedisServer) { admin(t, s, "REPLICAOF", "127.0.0.1", "1") },
			end:   func(t *testing.T, s *testenv.RedisServer) { admin(t, s, "REPLICAOF", "NO", "ONE") },
			call:  func(ctx context.Context, c *redis.Client) error { return c.Get(ctx, "k").Err() }},
		{name: "OOM", outcome: "outage", text: "OOM",
			begin: func(t *testing.T, s *testenv.RedisServer) { admin(t, s, "CONFIG", "SET", "maxmemory", "1") },
			end:   func(t *testing.T, s *testenv.RedisServer) { admin(t, s, "CONFIG", "SET", "maxmemory", "0") }},
		{name: "OOM_InAScript", outcome: "outage", text: "OOM",
			begin: func(t *testing.T, s *testenv.RedisServer) { admin(t, s, "CONFIG", "SET", "maxmemory", "1") },
			end:   func(t *testing.T, s *testenv.RedisServer) { admin(t, s, "CONFIG", "SET", "maxmemory", "0") },
			call: func(ctx context.Context, c *redis.Client) error {
				return c.Eval(ctx, `return redis.call("SET", KEYS[1], "v")`, []string{"k"}).Err()
			}},
		{name: "LOADING", outcome: "outage", text: "LOADING",
			conf:  []string{"enable-debug-command yes", "loading-process-events-interval-bytes 1024"},
			begin: beginLoading, end: func(t *testing.T, s *testenv.RedisServer) { awaitLoaded(t, s) }},
		{name: "CLUSTERDOWN", outcome: "outage", text: "CLUSTERDOWN", conf: []string{"cluster-enabled yes"},
			begin: func(*testing.T, *testenv.RedisServer) {},
			end: func(t *testing.T, s *testenv.RedisServer) {
				admin(t, s, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
			}},
		{name: "TooManyClients", outcome: "outage", text: "",
			begin: func(t *testing.T, s *testenv.RedisServer) { admin(t, s, "CONFIG", "SET", "maxclients", "1") },
			end:   func(t *testing.T, s *testenv.RedisServer) { s.Restart() }},
		{name: "ScriptThatFails_IsAFailure", outcome: "failed", text: "nonexistent global",
			begin: func(*testing.T, *testenv.RedisServer) {}, end: func(*testing.T, *testenv.RedisServer) {},
			call: func(ctx context.Context, c *redis.Client) error { return c.Eval(ctx, `return nothing.at`, nil).Err() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := testenv.NewRedis(t, c.conf...)
			call := c.call
			if call == nil {
				call = set
			}
			m := meet(t, nil, worker.Options{}, func(w *worker.Worker, m *met) error {
				return worker.Handle(w, "h", "orders", func(ctx context.Context, e worker.Event[workertest.Job]) error {
					if m.called {
						m.second = e.Attempt
						return nil
					}
					m.called = true
					c.begin(t, server)
					client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, ReadTimeout: 300 * time.Millisecond, DialTimeout: time.Second})
					m.err = call(ctx, client)
					_ = client.Close()
					c.end(t, server)
					return m.err
				})
			})
			m.check(t, c.outcome, c.text)
		})
	}
}

// beginLoading has a server read its own data again, slowly.
func beginLoading(t *testing.T, s *testenv.RedisServer) {
	t.Helper()
	ctx, client := context.WithoutCancel(t.Context()), s.Client(t)
	ok(t, client.Eval(ctx, `for i = 1, 20000 do redis.call("SET", "key" .. i, string.rep("x", 100)) end return 1`, nil).Err())
	ok(t, client.ConfigSet(ctx, "key-load-delay", "100").Err())
	go func() { _ = client.Do(ctx, "DEBUG", "RELOAD").Err() }()
	for { // until it says so itself
		if err := client.Get(ctx, "key1").Err(); err != nil && strings.HasPrefix(err.Error(), "LOADING") {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func awaitLoaded(t *testing.T, s *testenv.RedisServer) {
	t.Helper()
	client := s.Client(t)
	ok(t, client.ConfigSet(context.WithoutCancel(t.Context()), "key-load-delay", "0").Err())
	for client.Get(context.WithoutCancel(t.Context()), "key1").Err() != nil {
		time.Sleep(10 * time.Millisecond)
	}
}

// A connection that is not to be had in the attempt's own time is the attempt's;
// with time left it is an outage.
func TestTimeout_OfTheAttemptIsAFailure_OfTheServerAnOutage(t *testing.T) {
	server := testenv.NewRedis(t)
	for _, c := range []struct {
		outcome     string
		own, server time.Duration
	}{{"timeout", 200 * time.Millisecond, time.Minute}, {"outage", time.Minute, 200 * time.Millisecond}} {
		t.Run(c.outcome, func(t *testing.T) {
			client := server.Client(t, func(o *redis.Options) {
				o.MaxRetries, o.ReadTimeout, o.ContextTimeoutEnabled = -1, c.server, true
			})
			m := meet(t, nil, worker.Options{Timeout: c.own}, func(w *worker.Worker, m *met) error {
				return worker.Handle(w, "h", "orders", func(ctx context.Context, e worker.Event[workertest.Job]) error {
					if m.called {
						m.second = e.Attempt
						return nil
					}
					m.called = true
					server.Stop()
					defer server.Cont()
					m.err = client.Get(ctx, "k").Err()
					return m.err
				})
			})
			if m.outcomes[c.outcome] != 1 || m.outcomes["done"] != 1 {
				t.Errorf("%v: outcomes %v", m.err, m.outcomes)
			}
		})
	}
}
