package workertest_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/pressly/goose/v3"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqlinbox"
	"github.com/firstcome/firstcome/worker/workertest"
)

// Events of many keys change the same two rows in both orders: serialization
// failures and deadlocks in plenty, and nobody's fault.
func TestManyKeysOverTwoRows_AreAllFinished_NoneIsBuried(t *testing.T) {
	const keys, each = 16, 8
	for _, c := range []struct {
		name, dialect string
		db            func(t *testing.T) *sql.DB
		level         sql.IsolationLevel
	}{
		{"PostgreSQL_Serializable", "postgres", func(t *testing.T) *sql.DB {
			db := prepared(t, testenv.Postgres(t).DB(t), "postgres", goose.DialectPostgres)
			// A second each otherwise, in which all others wait too.
			exec(t, db, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = 20', current_database()); END $$`)
			db.SetMaxIdleConns(-1) // the setting is a new session's
			db.SetMaxIdleConns(20)
			return db
		}, sql.LevelSerializable},
		{"MariaDB_RepeatableRead", "mysql", func(t *testing.T) *sql.DB {
			return prepared(t, testenv.MariaDB(t).DB(t), "mysql", goose.DialectMySQL)
		}, sql.LevelDefault},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := c.db(t)
			l := &line{db: db, letters: make(chan worker.Letter, 1000)}
			inbox, err := sqlinbox.New(db, c.dialect, &sqlinbox.Options{TxOptions: &sql.TxOptions{Isolation: c.level}})
			ok(t, err)
			bus := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 1000}, nil)
			t.Cleanup(func() { _ = bus.Close() })
			l.run(t, bus, inbox, worker.Options{MaxAttempts: 2, Timeout: time.Minute}, func(w *worker.Worker) error {
				return worker.HandleTx(w, "h", "orders", func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
					if e.Payload.N%2 == 0 {
						return run(ctx, tx, touch1, touch2)
					}
					return run(ctx, tx, touch2, touch1)
				})
			})
			for n := range keys * each {
				m := workertest.Event("orders", n)
				m.Metadata.Set(worker.MetaKey, fmt.Sprint(n%keys))
				ok(t, bus.Publish("orders", m))
			}
			l.await(t, `SELECT MIN(n) FROM totals`, keys*each)
			time.Sleep(100 * time.Millisecond) // and none is counted twice
			var n int
			ok(t, db.QueryRowContext(t.Context(), `SELECT MAX(n) FROM totals`).Scan(&n))
			if n != keys*each || len(l.letters) > 0 {
				t.Errorf("%d effects of %d events, %d dead letters", n, keys*each, len(l.letters))
			}
		})
	}
}
