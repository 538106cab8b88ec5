package testenv_test

import (
	"context"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
)

func TestPostgres_EachDatabaseIsFresh(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	for range 2 {
		if _, err := server.DB(t).ExecContext(t.Context(), "CREATE TABLE a (id int)"); err != nil {
			t.Error(err)
		}
	}
}

func TestPostgres_DatabaseIsDroppedWithItsTestThoughSomebodyIsConnected(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	var name string
	t.Run("user", func(t *testing.T) {
		db := server.DB(t)
		if err := db.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
	})
	var n int
	if err := server.DB(t).QueryRowContext(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if name == "" || n != 0 {
		t.Errorf("database %q is still there", name)
	}
}

func TestPostgres_StoppedOneHangsInOpenConnectionsTooAndContinuedOneAnswers(t *testing.T) {
	t.Parallel()
	server := testenv.NewPostgres(t)
	db := server.DB(t)
	if err := db.PingContext(t.Context()); err != nil { // a connection is open now
		t.Fatal(err)
	}
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := db.ExecContext(ctx, "SELECT 1"); err == nil {
		t.Error("a stopped server answered")
	}
	server.Cont()
	if _, err := db.ExecContext(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("after Cont: %v", err)
	}
}

func TestPostgres_KilledOneKeepsWhatWasCommittedAndNothingElse(t *testing.T) {
	t.Parallel()
	server := testenv.NewPostgres(t, "fsync = on")
	db := server.DB(t)
	for _, statement := range []string{"CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)"} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "INSERT INTO a VALUES (2)"); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	if err := tx.Commit(); err == nil {
		t.Error("a killed server committed")
	}
	server.Restart()
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM a").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v; want the committed one", n, err)
	}
	var fsync string
	if err := db.QueryRowContext(t.Context(), "SHOW fsync").Scan(&fsync); err != nil || fsync != "on" {
		t.Errorf("fsync = %q, %v", fsync, err)
	}
}
