package sqlinbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/worker/sqlinbox"
	"github.com/firstcome/firstcome/worker/workertest"
)

// database is one that the tests run on.
type database struct {
	name   string // of the dialect
	goose  goose.Dialect
	open   func(t *testing.T) *sql.DB
	insert string
}

var databases = []database{
	{"sqlite", goose.DialectSQLite3, openSQLite, `INSERT INTO effects (event_id) VALUES (?)`},
	{"postgres", goose.DialectPostgres, func(t *testing.T) *sql.DB { return testenv.Postgres(t).DB(t) }, `INSERT INTO effects (event_id) VALUES ($1)`},
	{"mysql", goose.DialectMySQL, func(t *testing.T) *sql.DB { return testenv.MariaDB(t).DB(t) }, `INSERT INTO effects (event_id) VALUES (?)`},
}

func openSQLite(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "inbox.db")+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
	ok(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// fresh is a database with the inbox's table and one for effects.
func (d database) fresh(t *testing.T) *sql.DB {
	t.Helper()
	db := d.open(t)
	files, err := sqlinbox.Migrations(d.name)
	ok(t, err)
	p, err := goose.NewProvider(d.goose, db, files, goose.WithTableName("firstcome_inbox_version"))
	ok(t, err)
	_, err = p.Up(t.Context())
	ok(t, err)
	_, err = db.ExecContext(t.Context(), `CREATE TABLE effects (event_id text NOT NULL)`)
	ok(t, err)
	return db
}

func each(t *testing.T, test func(t *testing.T, d database)) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) { test(t, d) })
	}
}

func TestInbox(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		workertest.Inbox(t, func(t *testing.T) workertest.InboxParts {
			db := d.fresh(t)
			inbox, err := sqlinbox.New(db, d.name, nil)
			ok(t, err)
			return workertest.InboxParts{Inbox: inbox, DB: db, Insert: d.insert}
		})
	})
}

// At a stricter isolation the second of two fails instead of waiting; the worker
// tries again.
func TestInbox_Serializable(t *testing.T) {
	d := databases[1]
	db := d.fresh(t)
	inbox, err := sqlinbox.New(db, d.name, &sqlinbox.Options{TxOptions: &sql.TxOptions{Isolation: sql.LevelSerializable}})
	ok(t, err)
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			for try := 0; ; try++ {
				_, err := inbox.InTx(t.Context(), "h", "1", func(tx *sql.Tx) error {
					_, err := tx.ExecContext(t.Context(), d.insert, "1")
					return err
				})
				if err == nil || try > 50 {
					done <- err
					return
				}
			}
		}()
	}
	for range cap(done) {
		ok(t, <-done)
	}
	if n := workertest.Effects(t, db)["1"]; n != 1 {
		t.Fatalf("%d effects, want 1", n)
	}
}

func TestMigrations_GoDownAgain(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		db := d.fresh(t)
		files, err := sqlinbox.Migrations(d.name)
		ok(t, err)
		p, err := goose.NewProvider(d.goose, db, files, goose.WithTableName("firstcome_inbox_version"))
		ok(t, err)
		_, err = p.DownTo(t.Context(), 0)
		ok(t, err)
		if _, err := db.ExecContext(t.Context(), `SELECT 1 FROM firstcome_inbox`); err == nil {
			t.Error("the table is still there")
		}
	})
}

func TestClean_RemovesWhatIsOlder_InChunks(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		db := d.fresh(t)
		inbox, err := sqlinbox.New(db, d.name, &sqlinbox.Options{Retention: time.Hour, CleanChunk: 10})
		ok(t, err)
		for n := range 35 {
			ok(t, inbox.Mark(t.Context(), "h", fmt.Sprint(n)))
		}
		_, err = db.ExecContext(t.Context(), `UPDATE firstcome_inbox SET done_at = done_at - 3601000000 WHERE event_id <> '7'`)
		ok(t, err)
		if n := count(t, inbox); n != 35 {
			t.Fatalf("%d rows, want 35", n)
		}
		removed, err := inbox.Clean(t.Context())
		if err != nil || removed != 34 {
			t.Fatalf("removed %d, %v; want 34", removed, err)
		}
		if seen, err := inbox.Seen(t.Context(), "h", "7"); err != nil || !seen {
			t.Errorf("the young row went, too: %v, %v", seen, err)
		}
		forever, err := sqlinbox.New(db, d.name, &sqlinbox.Options{Retention: sqlinbox.Forever})
		ok(t, err)
		if removed, err := forever.Clean(t.Context()); err != nil || removed != 0 || forever.Retention() != 0 {
			t.Errorf("Forever: removed %d, %v, retention %v", removed, err, forever.Retention())
		}
	})
}

func TestRun_CleansAgainAndAgain_UntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := databases[0]
		db := d.fresh(t)
		defer func() { _ = db.Close() }()
		inbox, err := sqlinbox.New(db, d.name, &sqlinbox.Options{Retention: time.Hour})
		ok(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- inbox.Run(ctx) }()
		for range 3 {
			ok(t, inbox.Mark(ctx, "h", "1"))
			_, err = db.ExecContext(ctx, `UPDATE firstcome_inbox SET done_at = 0`)
			ok(t, err)
			time.Sleep(11 * time.Minute)
			if n := count(t, inbox); n != 0 {
				t.Fatalf("%d rows left", n)
			}
		}
		cancel()
		ok(t, <-ended)
	})
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	db := openSQLite(t)
	for name, f := range map[string]func() (*sqlinbox.Inbox, error){
		"db":         func() (*sqlinbox.Inbox, error) { return sqlinbox.New(nil, "sqlite", nil) },
		"dialect":    func() (*sqlinbox.Inbox, error) { return sqlinbox.New(db, "oracle", nil) },
		"Retention":  func() (*sqlinbox.Inbox, error) { return sqlinbox.New(db, "sqlite", &sqlinbox.Options{Retention: -2}) },
		"CleanEvery": func() (*sqlinbox.Inbox, error) { return sqlinbox.New(db, "sqlite", &sqlinbox.Options{CleanEvery: -2}) },
		"CleanChunk": func() (*sqlinbox.Inbox, error) { return sqlinbox.New(db, "sqlite", &sqlinbox.Options{CleanChunk: -2}) },
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := sqlinbox.Migrations("oracle"); err == nil {
		t.Error("migrations of an unknown dialect")
	}
}

func count(t *testing.T, inbox *sqlinbox.Inbox) int64 {
	t.Helper()
	n, err := inbox.Count(t.Context(), "h")
	ok(t, err)
	return n
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
