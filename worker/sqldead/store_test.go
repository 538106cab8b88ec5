package sqldead_test

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqldead"
	"github.com/firstcome/firstcome/worker/sqlinbox"
	"github.com/firstcome/firstcome/worker/workertest"
)

// database is one that the tests run on.
type database struct {
	name   string // of the dialect
	driver string
	goose  goose.Dialect
	source func(t *testing.T) string // of a new database
	insert string
}

var databases = []database{
	{"sqlite", "sqlite", goose.DialectSQLite3, func(t *testing.T) string {
		return "file:" + filepath.Join(t.TempDir(), "dead.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"
	}, `INSERT INTO effects (event_id) VALUES (?)`},
	{"postgres", "pgx", goose.DialectPostgres, func(t *testing.T) string { return testenv.Postgres(t).NewDatabase(t) }, `INSERT INTO effects (event_id) VALUES ($1)`},
	{"mysql", "mysql", goose.DialectMySQL, func(t *testing.T) string { return testenv.MariaDB(t).NewDatabase(t) }, `INSERT INTO effects (event_id) VALUES (?)`},
}

func each(t *testing.T, test func(t *testing.T, d database)) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) { test(t, d) })
	}
}

func (d database) open(t *testing.T, source string) *sql.DB {
	t.Helper()
	db, err := sql.Open(d.driver, source)
	ok(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// fresh is a database with the tables of letters and inbox, and one for effects.
func (d database) fresh(t *testing.T) (source string, db *sql.DB) {
	t.Helper()
	source = d.source(t)
	db = d.open(t, source)
	for name, migrations := range map[string]func(string) (fs.FS, error){"dead": sqldead.Migrations, "inbox": sqlinbox.Migrations} {
		files, err := migrations(d.name)
		ok(t, err)
		p, err := goose.NewProvider(d.goose, db, files, goose.WithTableName("firstcome_version_"+name))
		ok(t, err)
		_, err = p.Up(t.Context())
		ok(t, err)
	}
	_, err := db.ExecContext(t.Context(), `CREATE TABLE effects (event_id varchar(200) NOT NULL)`)
	ok(t, err)
	return source, db
}

func TestLetters(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		workertest.Letters(t, func(t *testing.T) workertest.LetterParts {
			source, db := d.fresh(t)
			return workertest.LetterParts{Store: store(t, db, d, &sqldead.Options{MaxPayload: 1000}), Other: store(t, d.open(t, source), d, nil), MaxPayload: 1000}
		})
	})
}

func store(t *testing.T, db *sql.DB, d database, opts *sqldead.Options) *sqldead.Store {
	t.Helper()
	s, err := sqldead.New(db, d.name, opts)
	ok(t, err)
	return s
}

func TestMigrations_GoDownAgain(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		_, db := d.fresh(t)
		files, err := sqldead.Migrations(d.name)
		ok(t, err)
		p, err := goose.NewProvider(d.goose, db, files, goose.WithTableName("firstcome_version_dead"))
		ok(t, err)
		_, err = p.DownTo(t.Context(), 0)
		ok(t, err)
		if _, err := db.ExecContext(t.Context(), `SELECT 1 FROM firstcome_dead_letter`); err == nil {
			t.Error("the table is still there")
		}
	})
}

func TestClean_RemovesOldTombstones_AndNoLetter(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		_, db := d.fresh(t)
		s := store(t, db, d, &sqldead.Options{Retention: time.Hour, CleanChunk: 2})
		for n, id := range []string{"a", "b", "c", "d", "e", "f", "g"} {
			ok(t, s.Put(t.Context(), worker.Letter{Handler: "h", EventID: id}))
			l, err := s.Find(t.Context(), "h", id)
			ok(t, err)
			switch {
			case n < 5:
				ok(t, s.Drop(t.Context(), l.Seq))
			case n == 5:
				ok(t, s.Requeue(t.Context(), l.Seq))
			}
		}
		_, err := db.ExecContext(t.Context(), `UPDATE firstcome_dead_letter SET changed_at = changed_at - 3601000000, buried_at = buried_at - 3601000000 WHERE event_key <> 'a'`)
		ok(t, err)
		if removed, err := s.Clean(t.Context()); err != nil || removed != 4 {
			t.Errorf("removed %d, %v; want 4", removed, err)
		}
		for id, want := range map[string]bool{"a": true, "b": false, "e": false, "f": true, "g": true} {
			if buried, err := s.Buried(t.Context(), "h", id); err != nil || buried != want {
				t.Errorf("%s: %v, %v", id, buried, err)
			}
		}
		stats, err := s.LetterStats(t.Context())
		ok(t, err)
		for _, st := range stats {
			if st.State == worker.LetterDead && (st.Oldest < time.Hour || st.Oldest > 2*time.Hour) {
				t.Errorf("the oldest is %v old", st.Oldest)
			}
		}
	})
}

// A session's time zone moves no time: neither an age nor a lease.
func TestMariaDB_TimesAreTheSameInEveryZone(t *testing.T) {
	d := databases[2]
	source, db := d.fresh(t)
	s := store(t, db, d, nil)
	ok(t, s.Put(t.Context(), worker.Letter{Handler: "h", EventID: "1"}))
	far := store(t, d.open(t, source+"&time_zone=%27%2B13%3A00%27"), d, nil)
	l, err := far.Find(t.Context(), "h", "1")
	if err != nil || l.Age > time.Hour || l.At.After(time.Now().Add(time.Hour)) || l.At.Before(time.Now().Add(-time.Hour)) {
		t.Errorf("got %+v, %v", l, err)
	}
	ok(t, far.Requeue(t.Context(), l.Seq))
	if _, taken, err := s.Take(t.Context(), l.Seq, "a", time.Minute); err != nil || !taken {
		t.Fatal(taken, err)
	}
	if _, taken, err := far.Take(t.Context(), l.Seq, "b", time.Minute); err != nil || taken {
		t.Errorf("the lease has ended in another zone: %v", err)
	}
}

// In a zone's autumn an hour comes twice. A lease that was taken in it ends no
// sooner.
func TestMariaDB_ALeaseOutlastsTheHourThatComesTwice(t *testing.T) {
	d := databases[2]
	_, db := d.fresh(t)
	db.SetMaxOpenConns(1) // its session has the zone, and says what time it is
	exec := func(statement string) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), statement)
		ok(t, err)
	}
	exec(`REPLACE INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (901, 'N')`)
	exec(`REPLACE INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('Test/Autumn', 901)`)
	exec(`REPLACE INTO mysql.time_zone_transition_type VALUES (901, 0, 7200, 1, 'CEST'), (901, 1, 3600, 0, 'CET')`)
	exec(`REPLACE INTO mysql.time_zone_transition VALUES (901, 1774746000, 0), (901, 1792890000, 1)`)
	exec(`SET time_zone = 'Test/Autumn', timestamp = 1792893590`) // ten seconds before its end
	s := store(t, db, d, nil)
	ok(t, s.Put(t.Context(), worker.Letter{Handler: "h", EventID: "1"}))
	l, err := s.Find(t.Context(), "h", "1")
	ok(t, err)
	ok(t, s.Requeue(t.Context(), l.Seq))
	if _, taken, err := s.Take(t.Context(), l.Seq, "a", time.Minute); err != nil || !taken {
		t.Fatal(taken, err)
	}
	exec(`SET timestamp = 1792893610`)
	if _, taken, err := s.Take(t.Context(), l.Seq, "b", time.Minute); err != nil || taken {
		t.Errorf("another has it after 20 seconds of its minute: %v", err)
	}
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	db := databases[0].open(t, databases[0].source(t))
	for name, f := range map[string]func() (*sqldead.Store, error){
		"db":      func() (*sqldead.Store, error) { return sqldead.New(nil, "sqlite", nil) },
		"dialect": func() (*sqldead.Store, error) { return sqldead.New(db, "oracle", nil) },
		"MaxPayload": func() (*sqldead.Store, error) {
			return sqldead.New(db, "sqlite", &sqldead.Options{MaxPayload: 1 << 30})
		},
		"Retention":  func() (*sqldead.Store, error) { return sqldead.New(db, "sqlite", &sqldead.Options{Retention: -1}) },
		"CleanEvery": func() (*sqldead.Store, error) { return sqldead.New(db, "sqlite", &sqldead.Options{CleanEvery: -1}) },
		"CleanChunk": func() (*sqldead.Store, error) { return sqldead.New(db, "sqlite", &sqldead.Options{CleanChunk: -1}) },
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := sqldead.Migrations("oracle"); err == nil {
		t.Error("migrations of an unknown dialect")
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
