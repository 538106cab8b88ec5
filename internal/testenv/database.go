package testenv

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// newDatabase makes an empty database on the server of c, which is dropped at
// the end of t, and returns its name. create and drop are statements with %s
// in the name's place.
func newDatabase(t TB, c *Controls, driver, dsn, create, drop string) string {
	t.Helper()
	name := strings.ReplaceAll(Name(t), "-", "_")
	if err := runStatement(driver, dsn, fmt.Sprintf(create, name)); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if _, err := c.process.alive(); err != nil || !c.shared {
			return // a private server goes as a whole
		}
		if err := runStatement(driver, dsn, fmt.Sprintf(drop, name)); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	return name
}

// openDatabase opens a database, which is closed at the end of t.
func openDatabase(t TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatalf("testenv: open a database: %v", err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the test may have closed it itself
	return db
}

// runStatement runs one statement on a connection of its own.
func runStatement(driver, dsn, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
