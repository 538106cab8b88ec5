package redisstock_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock/sqlledger"
)

// books is a ledger with its database.
type books struct {
	*sqlledger.Ledger
	db *sql.DB
}

// newLedger makes a ledger on an empty SQLite database.
func newLedger(t *testing.T, opts *sqlledger.Options) *books {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ledger.db")
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return openBooks(t, db, "sqlite", goose.DialectSQLite3, opts)
}

// newServerLedger makes a ledger on an empty PostgreSQL database, where
// transactions run side by side.
func newServerLedger(t *testing.T, opts *sqlledger.Options) *books {
	t.Helper()
	return openBooks(t, testenv.Postgres(t).DB(t), "postgres", goose.DialectPostgres, opts)
}

func openBooks(t *testing.T, db *sql.DB, dialect string, as goose.Dialect, opts *sqlledger.Options) *books {
	t.Helper()
	files, err := sqlledger.Migrations(dialect)
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(as, db, files, goose.WithTableName("firstcome_stock_version"), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	ledger, err := sqlledger.New(db, dialect, opts)
	if err != nil {
		t.Fatal(err)
	}
	return &books{Ledger: ledger, db: db}
}
