package sqldead

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/worker"
)

var _ worker.LetterStore = (*Store)(nil)

// Store keeps dead letters in the table firstcome_dead_letter. All of its methods
// may be called from many goroutines.
type Store struct {
	db      *sql.DB
	dialect sqldialect.Dialect
	now     string // SQL for the database's wall clock, microseconds since 1970
	opts    Options

	mu      sync.Mutex
	changed chan struct{}        // closed and renewed by each Requeue
	told    map[string]time.Time // when a handler's row was last written
}

// New builds a store on a database of a dialect: postgres, mysql (MariaDB too)
// or sqlite. The database stays the caller's to close. The tables are made by
// [Migrations].
func New(db *sql.DB, dialect string, opts *Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqldead: db is nil")
	}
	d, err := sqldialect.Parse(dialect)
	if err != nil {
		return nil, fmt.Errorf("sqldead: %w", err)
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Store{db: db, dialect: d, now: clock(d), opts: o, changed: make(chan struct{}), told: map[string]time.Time{}}, nil
}

// clock is the database's wall clock, the same in every session. On MySQL that is
// not UNIX_TIMESTAMP(NOW(6)), which goes through the session's zone: in the hour
// that comes twice in autumn it is an hour late, and at its end it leaps.
func clock(d sqldialect.Dialect) string {
	switch d {
	case sqldialect.Postgres:
		return "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
	case sqldialect.MySQL:
		return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
	default:
		return "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
	}
}

// Database is what the store was built on. A worker whose inbox is on the same
// one removes a letter in the transaction of the event's mark.
func (s *Store) Database() *sql.DB { return s.db }

// Retention is how long tombstones are kept. worker.New compares it with the
// time over which the broker may repeat.
func (s *Store) Retention() time.Duration { return s.opts.Retention }

func (s *Store) exec(ctx context.Context, db sqldialect.Executor, query string, args ...any) (int64, error) {
	return sqldialect.Affected(ctx, db, s.dialect.Rebind(query), args...)
}

// query runs a statement and hands each row to scan.
func (s *Store) query(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := s.db.QueryContext(ctx, s.dialect.Rebind(query), args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func micros(us int64) time.Duration { return max(0, time.Duration(us)*time.Microsecond) }
