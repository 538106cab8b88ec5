package app

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
	"github.com/firstcome/firstcome/stock/sqlledger"
	"github.com/firstcome/firstcome/worker/sqldead"
	"github.com/firstcome/firstcome/worker/sqlinbox"
)

//go:embed migrations/*.sql
var ownMigrations embed.FS

// migrate brings all tables up to date. Each part counts its own versions.
// Several processes may start at once: each waits for the one before it.
func migrate(ctx context.Context, db fxmodule.Database) error {
	own := func(string) (fs.FS, error) { return fs.Sub(ownMigrations, "migrations") }
	unlock, err := lockSchema(ctx, db)
	if err != nil {
		return err
	}
	defer unlock()
	for _, part := range []struct {
		name  string
		files func(dialect string) (fs.FS, error)
	}{
		{"shop", own},
		{"ledger", sqlledger.Migrations},
		{"outbox", sqloutbox.Migrations},
		{"inbox", sqlinbox.Migrations},
		{"dead", sqldead.Migrations},
	} {
		files, err := part.files(db.Dialect)
		if err != nil {
			return fmt.Errorf("migrate %s: %w", part.name, err)
		}
		if err := up(ctx, db, part.name, files); err != nil {
			return fmt.Errorf("migrate %s: %w", part.name, err)
		}
	}
	return nil
}

func up(ctx context.Context, db fxmodule.Database, name string, files fs.FS) error {
	dialect := goose.DialectPostgres
	if db.Dialect == "sqlite" {
		dialect = goose.DialectSQLite3
	}
	p, err := goose.NewProvider(dialect, db.DB, files, goose.WithTableName("firstcome_version_"+name))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// lockSchema keeps two processes from creating the same table. SQLite has one
// writer, and is not shared by the shop's processes.
func lockSchema(ctx context.Context, db fxmodule.Database) (unlock func(), err error) {
	if db.Dialect != "postgres" {
		return func() {}, nil
	}
	tx, err := db.DB.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("lock schema: %w", err)
	}
	// Held until the transaction ends, so it works behind a pooler too.
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(7310868135262644082)`); err != nil {
		_ = tx.Rollback()
		return nil, fmt.Errorf("lock schema: %w", err)
	}
	return func() { _ = tx.Rollback() }, nil
}
