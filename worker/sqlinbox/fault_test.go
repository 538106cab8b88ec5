package sqlinbox_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/workertest"
)

// viaFaulty is a second way to a database of the shared PostgreSQL, with faults.
func viaFaulty(t *testing.T, db *sql.DB) (*sql.DB, *faulty.Dialer) {
	t.Helper()
	conn, err := db.Conn(t.Context())
	ok(t, err)
	defer func() { _ = conn.Close() }()
	var config *pgx.ConnConfig
	ok(t, conn.Raw(func(c any) error {
		config = c.(*stdlib.Conn).Conn().Config()
		return nil
	}))
	dialer := faulty.NewDialer()
	config.DialFunc = dialer.DialContext
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // the text goes with each statement
	faultyDB := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = faultyDB.Close() })
	return faultyDB, dialer
}

// Whichever word between worker and database is lost, of the COMMIT too, whose
// outcome is then unknown: one effect.
func TestLostReplies_OneEffect(t *testing.T) {
	d := databases[1]
	for _, statement := range []string{"begin", "insert into firstcome_inbox", "insert into effects", "commit"} {
		for name, plan := range map[string]func(*faulty.Dialer) *faulty.Fault{
			"ReplyCut":   func(f *faulty.Dialer) *faulty.Fault { return f.CutReply(1, faulty.Contains(statement)) },
			"RequestCut": func(f *faulty.Dialer) *faulty.Fault { return f.CutRequest(1, faulty.Contains(statement)) },
			"Silence":    func(f *faulty.Dialer) *faulty.Fault { return f.DropReply(1, faulty.Contains(statement)) },
		} {
			t.Run(name+"_"+statement, func(t *testing.T) {
				db := d.fresh(t)
				fdb, dialer := viaFaulty(t, db)
				opts := &worker.Options{Retry: func(int) time.Duration { return time.Millisecond }, Timeout: 2 * time.Second}
				publish := fleet(t, d, fdb, 1, opts, nil, func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
					return d.effect(ctx, tx, e.ID)
				})
				publish(workertest.Event("orders", 0))
				fault := plan(dialer)
				publish(workertest.Event("orders", 1), workertest.Event("orders", 2))
				fault.MustFire(t)
				counts := workertest.Effects(t, db)
				for _, id := range []string{"event-0", "event-1", "event-2"} {
					if counts[id] != 1 {
						t.Errorf("%s has %d effects", id, counts[id])
					}
				}
			})
		}
	}
}
