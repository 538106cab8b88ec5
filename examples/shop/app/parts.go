package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/alicebob/miniredis/v2"
	_ "github.com/jackc/pgx/v5/stdlib" // PostgreSQL
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	_ "modernc.org/sqlite" // SQLite

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/outbox/kafkapub"
	"github.com/firstcome/firstcome/outbox/streampub"
	"github.com/firstcome/firstcome/worker/kafkasub"
	"github.com/firstcome/firstcome/worker/streamsub"
)

// parts are the servers that a shop stands on, real or embedded, and what
// closes them, last opened first.
type parts struct {
	redis    *redis.Client
	db       fxmodule.Database
	brokers  []string // of Kafka; none means Redis Streams
	embedded []string // what is only a stand-in
	closers  []func() error
}

func (p *parts) close() error {
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i]())
	}
	p.closers = nil
	return errors.Join(errs...)
}

// open connects to what cfg names and starts stand-ins for the rest.
func open(ctx context.Context, cfg Config) (*parts, error) {
	p := new(parts)
	for _, step := range []func(context.Context, Config) error{p.openRedis, p.openDB, p.openBroker} {
		if err := step(ctx, cfg); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

func (p *parts) openRedis(ctx context.Context, cfg Config) error {
	target := cfg.Redis
	if target == "" {
		server, err := miniredis.Run()
		if err != nil {
			return fmt.Errorf("start embedded Redis: %w", err)
		}
		p.closers = append(p.closers, func() error { server.Close(); return nil }, expireKeys(server))
		p.embedded = append(p.embedded, "Redis")
		target = "redis://" + server.Addr()
	}
	opts, err := redis.ParseURL(target)
	if err != nil {
		return errors.New("-redis: not a redis:// or rediss:// URL") // the URL may hold a password
	}
	tune(opts)
	p.redis = redis.NewClient(opts)
	p.closers = append(p.closers, p.redis.Close)
	if err := p.redis.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("-redis: %w", err)
	}
	return nil
}

// expireKeys makes the stand-in's keys expire, which it does only when told
// that time has passed. It returns what ends it.
func expireKeys(server *miniredis.Miniredis) (end func() error) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		const beat = 100 * time.Millisecond
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				server.FastForward(beat)
			case <-stop:
				return
			}
		}
	}()
	return func() error { close(stop); <-done; return nil }
}

func (p *parts) openDB(ctx context.Context, cfg Config) error {
	target, sync := cfg.DB, "FULL"
	if target == "" {
		sync = "OFF" // the file goes with the process
		dir, err := os.MkdirTemp("", "firstcome-shop-")
		if err != nil {
			return fmt.Errorf("make a folder for the embedded database: %w", err)
		}
		p.closers = append(p.closers, func() error { return os.RemoveAll(dir) })
		p.embedded = append(p.embedded, "SQLite in a temporary file")
		target = "sqlite://" + filepath.ToSlash(filepath.Join(dir, "shop.db"))
	}
	driver, source, dialect, err := parseDB(target, sync)
	if err != nil {
		return err
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		return errors.New("-db: the URL can't be read")
	}
	p.closers = append(p.closers, db.Close)
	db.SetMaxOpenConns(24)
	db.SetMaxIdleConns(24)
	if dialect == "sqlite" {
		db.SetMaxOpenConns(4)
	}
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("-db: %w", err)
	}
	p.db = fxmodule.Database{DB: db, Dialect: dialect}
	return nil
}

// parseDB turns the flag into a driver's name and source. sync is how SQLite
// syncs its file at a commit.
func parseDB(target, sync string) (driver, source, dialect string, err error) {
	switch {
	case strings.HasPrefix(target, "postgres://"), strings.HasPrefix(target, "postgresql://"):
		return "pgx", target, "postgres", nil
	case strings.HasPrefix(target, "sqlite://"):
		path := strings.TrimPrefix(target, "sqlite://")
		if path == "" {
			return "", "", "", errors.New("-db: sqlite:// needs a path, as in sqlite:///var/lib/shop.db")
		}
		// One writer at a time: a transaction takes its turn when it begins,
		// and waits for it rather than failing.
		q := url.Values{"_pragma": {"journal_mode(WAL)", "busy_timeout(10000)", "synchronous(" + sync + ")"}, "_txlock": {"immediate"}}
		return "sqlite", "file:" + path + "?" + q.Encode(), "sqlite", nil
	default:
		return "", "", "", errors.New("-db: want postgres://… or sqlite:///path")
	}
}

func (p *parts) openBroker(_ context.Context, cfg Config) error {
	switch {
	case cfg.Broker == "redis":
		if cfg.Redis == "" {
			p.embedded = append(p.embedded, "the broker, Redis Streams on the embedded Redis")
		}
	case cfg.Broker == "kafka":
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, topicOrders))
		if err != nil {
			return fmt.Errorf("start embedded Kafka: %w", err)
		}
		p.closers = append(p.closers, func() error { cluster.Close(); return nil })
		p.embedded = append(p.embedded, "Kafka")
		p.brokers = cluster.ListenAddrs()
	default:
		p.brokers = strings.Split(strings.TrimPrefix(cfg.Broker, "kafka://"), ",")
	}
	return nil
}

func (p *parts) publisher() (message.Publisher, error) {
	if p.brokers == nil {
		return streampub.New(p.redis, nil)
	}
	return kafkapub.New(p.brokers, nil)
}

// warnings keeps what Watermill says at each subscription off the terminal.
var warnings = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

func (p *parts) subscriber() (message.Subscriber, error) {
	const group = "shop-checkout"
	if p.brokers == nil {
		return streamsub.New(p.redis, group, &streamsub.Options{Logger: warnings})
	}
	return kafkasub.New(p.brokers, group, &kafkasub.Options{Logger: warnings})
}

// check asks whether the servers answer.
func (p *parts) check(ctx context.Context) error {
	return errors.Join(p.redis.Ping(ctx).Err(), p.db.DB.PingContext(ctx))
}
