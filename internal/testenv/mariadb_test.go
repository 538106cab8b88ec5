package testenv_test

import (
	"testing"

	"github.com/firstcome/firstcome/internal/testenv"
)

func TestMariaDB_EachDatabaseIsFresh(t *testing.T) {
	t.Parallel()
	server := testenv.MariaDB(t)
	for range 2 {
		if _, err := server.DB(t).ExecContext(t.Context(), "CREATE TABLE a (id int)"); err != nil {
			t.Error(err)
		}
	}
}

func TestMariaDB_KilledOneKeepsWhatWasCommittedAndNothingElse(t *testing.T) {
	t.Parallel()
	server := testenv.NewMariaDB(t)
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
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM a").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if n != 1 {
		t.Errorf("%d rows after the restart, want 1", n)
	}
}
