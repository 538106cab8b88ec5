package sqloutbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/outboxtest"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
)

func TestMain(m *testing.M) {
	testenv.Main(m, testenv.Role{Name: "relay", Main: relayProcess})
}

var gooseDialects = map[string]goose.Dialect{
	"postgres": goose.DialectPostgres, "mysql": goose.DialectMySQL, "sqlite": goose.DialectSQLite3,
}

// migrate brings a database up by goose, as its users do.
func migrate(t testing.TB, db *sql.DB, dialect string) {
	t.Helper()
	files, err := sqloutbox.Migrations(dialect)
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(gooseDialects[dialect], db, files, goose.WithTableName("firstcome_outbox_migrations"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func newStore(t testing.TB, db *sql.DB, dialect string) *sqloutbox.Store {
	t.Helper()
	migrate(t, db, dialect)
	store, err := sqloutbox.New(db, dialect, nil)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func sqliteDB(t testing.TB) *sql.DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outbox.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)&_pragma=synchronous(NORMAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// tx adapts a transaction to the suite's.
type tx struct {
	*sql.Tx
	store *sqloutbox.Store
}

func (x tx) Add(ctx context.Context, msgs ...outbox.Message) error {
	return x.store.Add(ctx, x.Tx, msgs...)
}

func subject(t testing.TB, db *sql.DB, dialect string) outboxtest.Subject {
	store := newStore(t, db, dialect)
	return outboxtest.Subject{Store: store, Begin: func(t testing.TB) outboxtest.Tx {
		t.Helper()
		x, err := db.BeginTx(context.WithoutCancel(t.Context()), nil)
		if err != nil {
			t.Fatal(err)
		}
		return tx{x, store}
	}}
}

func TestConformance(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		outboxtest.Run(t, outboxtest.Harness{OneWriter: true, New: func(t *testing.T) outboxtest.Subject {
			return subject(t, sqliteDB(t), "sqlite")
		}})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		server := testenv.Postgres(t)
		outboxtest.Run(t, outboxtest.Harness{New: func(t *testing.T) outboxtest.Subject {
			return subject(t, server.DB(t), "postgres")
		}})
	})
	t.Run("MariaDB", func(t *testing.T) {
		t.Parallel()
		server := testenv.MariaDB(t)
		outboxtest.Run(t, outboxtest.Harness{New: func(t *testing.T) outboxtest.Subject {
			return subject(t, server.DB(t), "mysql")
		}})
	})
}

func TestMigrations_GoDownAgain(t *testing.T) {
	db := sqliteDB(t)
	files, err := sqloutbox.Migrations("sqlite")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := provider.DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := sqloutbox.Migrations("oracle"); err == nil {
		t.Fatal(fmt.Errorf("an unknown dialect has migrations"))
	}
}
