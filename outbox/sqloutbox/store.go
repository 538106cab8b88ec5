package sqloutbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/outbox"
)

var (
	_ outbox.Store    = (*Store)(nil)
	_ outbox.Operator = (*Store)(nil)
)

// Options of a [Store]. The zero value, and nil, mean the defaults.
type Options struct {
	// IdleTimeout is how long PostgreSQL keeps a transaction of ours whose
	// process froze in the middle of it before it frees its locks. Default 5 s.
	IdleTimeout time.Duration
}

// Store keeps the queue in four tables of a database, all named
// firstcome_outbox…; see [Migrations]. It is safe for concurrent use.
type Store struct {
	db      *sql.DB
	dialect sqldialect.Dialect
	now     string // SQL for the database's wall clock, ms since 1970
	idle    string // IdleTimeout in ms
}

// New returns a store on db, of the dialect "postgres", "mysql" or "sqlite". It
// touches nothing yet. The relay takes two of db's connections at most, one of
// them for milliseconds every few seconds; db stays the caller's to close.
func New(db *sql.DB, dialect string, opts *Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("sqloutbox: New: db is nil")
	}
	d, err := sqldialect.Parse(dialect)
	if err != nil {
		return nil, fmt.Errorf("sqloutbox: New: %w", err)
	}
	idle := 5 * time.Second
	if opts != nil && opts.IdleTimeout != 0 {
		idle = opts.IdleTimeout
	}
	if idle < time.Millisecond {
		return nil, errors.New("sqloutbox: New: Options.IdleTimeout must be at least 1ms")
	}
	return &Store{db: db, dialect: d, now: clock(d), idle: strconv.FormatInt(idle.Milliseconds(), 10)}, nil
}

// clock is the database's wall clock at the moment of evaluation, not at the
// start of the transaction or statement.
func clock(d sqldialect.Dialect) string {
	switch d {
	case sqldialect.Postgres:
		return "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
	case sqldialect.MySQL:
		return "CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)"
	default:
		return "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
	}
}

// inTx runs work in a short transaction. On SQLite its first statement must be
// a write, so that it waits its turn (busy_timeout) instead of being refused
// when it would turn from reader to writer.
func (s *Store) inTx(ctx context.Context, readOnly bool, work func(tx *sql.Tx) error) error {
	var opts *sql.TxOptions
	if s.dialect != sqldialect.SQLite {
		// No gap locks on MySQL, and a fresh snapshot for each statement.
		opts = &sql.TxOptions{Isolation: sql.LevelReadCommitted, ReadOnly: readOnly}
	}
	return sqldialect.InTx(ctx, s.db, opts, func(tx *sql.Tx) error {
		if s.dialect == sqldialect.Postgres {
			if err := s.tune(ctx, tx); err != nil {
				return fmt.Errorf("set up transaction: %w", err)
			}
		}
		return work(tx)
	})
}

// tune pins the plans to the indexes: a queue is empty one minute and has
// millions of rows the next, and a sequential scan planned for the first is
// kept for the second (the plan of a prepared statement outlives the statistics).
// Compiling them (jit) would take longer than running them. It also bounds what a process that freezes in here can block.
func (s *Store) tune(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true),
		set_config('idle_in_transaction_session_timeout', $1, true)`, s.idle)
	return err
}

func (s *Store) exec(ctx context.Context, db sqldialect.Executor, query string, args ...any) (int64, error) {
	return sqldialect.Affected(ctx, db, s.dialect.Rebind(query), args...)
}

// query runs a statement and hands each row to scan.
func (s *Store) query(ctx context.Context, db sqldialect.Executor, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := db.QueryContext(ctx, s.dialect.Rebind(query), args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			if errors.Is(err, errEnough) {
				return nil
			}
			return err
		}
	}
	return rows.Err()
}

// errEnough ends a query early, without an error.
var errEnough = errors.New("enough")

func anySlice[T any](first []any, rest []T) []any {
	out := make([]any, 0, len(first)+len(rest))
	out = append(out, first...)
	for _, v := range rest {
		out = append(out, v)
	}
	return out
}

func age(ms int64) time.Duration {
	return max(0, time.Duration(ms)*time.Millisecond)
}
