package fxmodule_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/pressly/goose/v3"
	"github.com/redis/go-redis/v9"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/sqlledger"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqldead"
	"github.com/firstcome/firstcome/worker/sqlinbox"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// database is a migrated SQLite file.
func database(t *testing.T) fxmodule.Database {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "app.db")+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for name, migrations := range map[string]func(string) (fs.FS, error){
		"ledger": func(d string) (fs.FS, error) { return sqlledger.Migrations(d) },
		"outbox": func(d string) (fs.FS, error) { return sqloutbox.Migrations(d) },
		"inbox":  func(d string) (fs.FS, error) { return sqlinbox.Migrations(d) },
		"dead":   func(d string) (fs.FS, error) { return sqldead.Migrations(d) },
	} {
		files, err := migrations("sqlite")
		if err != nil {
			t.Fatal(err)
		}
		p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithTableName(name+"_version"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return fxmodule.Database{DB: db, Dialect: "sqlite"}
}

func TestAnEventGoesFromTheOutboxToAHandlerThroughTheModules(t *testing.T) {
	db := database(t)
	client := testenv.Mini(t)
	channel := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{})
	handled := make(chan string, 1)
	var parts struct {
		fx.In

		Outbox  *sqloutbox.Store
		Relay   *outbox.Relay
		Stock   stock.Store
		Keeper  *idempotency.Keeper
		Limiter ratelimit.Limiter
	}
	app := fxtest.New(t,
		fx.NopLogger,
		fx.Supply(db),
		fx.Provide(
			func() redis.UniversalClient { return client },
			func() (message.Publisher, message.Subscriber) { return channel, channel },
			worker.DeadLetterTo,
		),
		fxmodule.Ledger(nil),
		fxmodule.Stock(redisstock.JournalOff, nil),
		fxmodule.Idempotency(make([]byte, 32), idempotency.Rerun, nil),
		fxmodule.RateLimit(nil),
		fxmodule.Outbox(nil),
		fxmodule.Relay([]string{"orders"}, nil),
		fxmodule.Inbox(nil),
		fxmodule.Worker(nil),
		fx.Invoke(func(w *worker.Worker) error {
			return worker.Handle(w, "test", "orders", func(_ context.Context, e worker.Event[string]) error {
				handled <- e.Payload
				return nil
			})
		}),
		fx.Populate(&parts),
	)
	app.RequireStart()
	if _, err := parts.Stock.Open(t.Context(), stock.Pool{SKU: "ticket", Total: 1}); err != nil {
		t.Fatal(err)
	}
	tx, err := db.DB.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := parts.Outbox.Add(t.Context(), tx, outbox.Message{ID: "1", Topic: "orders", Key: "k", Payload: []byte(`"hello"`)}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	parts.Relay.Notify()
	select {
	case got := <-handled:
		if got != "hello" {
			t.Errorf("handled %q", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was handled")
	}
	app.RequireStop()
}

func TestALoopThatFailsShutsTheApplicationDown(t *testing.T) {
	failing := errors.New("boom")
	app := fxtest.New(t, fx.NopLogger, fx.Invoke(func(lc fx.Lifecycle, sd fx.Shutdowner) {
		fxmodule.Loop(lc, sd, "failing", func(context.Context) error { return failing })
	}))
	app.RequireStart()
	select {
	case s := <-app.Wait():
		if s.ExitCode != 1 {
			t.Errorf("exit code %d", s.ExitCode)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the application goes on")
	}
	if err := app.Stop(t.Context()); !errors.Is(err, failing) {
		t.Errorf("stop: %v", err)
	}
}

func TestStoppingWaitsForTheLoopAndEndsIt(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ended := false
	app := fxtest.New(t, fx.NopLogger, fx.Invoke(func(lc fx.Lifecycle, sd fx.Shutdowner) {
		fxmodule.Loop(lc, sd, "loop", func(ctx context.Context) error {
			<-ctx.Done()
			ended = true
			return nil
		})
	}))
	app.RequireStart()
	app.RequireStop()
	if !ended {
		t.Error("stop returned before the loop")
	}
}
