// Package sqldialect holds what differs between the SQL databases that
// firstcome's drivers speak to, so that each statement is written once.
package sqldialect

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
)

// Dialect names a database's way of writing SQL. The zero value is none of
// them, so that a forgotten dialect is refused at construction.
type Dialect uint8

// The dialects.
const (
	Postgres Dialect = iota + 1
	MySQL            // MySQL 8 and MariaDB 10.6 or newer
	SQLite
)

// String returns the name that [Parse] reads.
func (d Dialect) String() string {
	switch d {
	case Postgres:
		return "postgres"
	case MySQL:
		return "mysql"
	case SQLite:
		return "sqlite"
	default:
		return "dialect(" + strconv.Itoa(int(d)) + ")"
	}
}

// Parse reads a dialect's name: postgres, mysql (also mariadb), sqlite.
func Parse(name string) (Dialect, error) {
	switch strings.ToLower(name) {
	case "postgres", "postgresql", "pgx":
		return Postgres, nil
	case "mysql", "mariadb":
		return MySQL, nil
	case "sqlite", "sqlite3":
		return SQLite, nil
	default:
		return 0, fmt.Errorf("sqldialect: unknown dialect %q: want postgres, mysql or sqlite", name)
	}
}

// Valid reports whether d is one of the dialects.
func (d Dialect) Valid() bool { return d >= Postgres && d <= SQLite }

// Rebind turns the ? placeholders of a constant statement into the dialect's
// own. Statements must not hold a question mark in a literal.
func (d Dialect) Rebind(query string) string {
	if d != Postgres {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 16)
	n := 0
	for _, r := range query {
		if r != '?' {
			b.WriteRune(r)
			continue
		}
		n++
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}

// Placeholders returns n placeholders joined by commas, for an IN list or a
// row of VALUES; [Dialect.Rebind] numbers them.
func Placeholders(n int) string {
	if n <= 0 {
		return ""
	}
	return strings.Repeat("?,", n-1) + "?"
}

// Executor is what a statement needs of a connection: *sql.DB, *sql.Conn and
// *sql.Tx have it, and so do the transactions of sqlx, bun and gorm.
type Executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Affected runs a statement and returns how many rows it changed.
func Affected(ctx context.Context, db Executor, query string, args ...any) (int64, error) {
	res, err := db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// InTx runs work in a transaction of its own: committed when work returns nil,
// rolled back otherwise. A failed COMMIT is returned as it is: its outcome is
// unknown, and the caller finds out by a UNIQUE column on a new connection.
func InTx(ctx context.Context, db *sql.DB, opts *sql.TxOptions, work func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // a no-op after Commit
	if err := work(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
