package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/stock"
)

var _ stock.Ledger = (*Ledger)(nil)

// Executor is your transaction, as narrowly as it is used: *sql.Tx has it, and
// so have *sql.Conn and the transactions of sqlx, bun and gorm. *sql.DB has it
// too, but then a step of several statements is not atomic: pass a transaction.
type Executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Options are the ledger's settings; nil and zero mean the defaults.
type Options struct {
	// Stripes is over how many rows a new pool's counter is spread (for a pool
	// with items that of each), so that sales don't queue for one row: 1 to
	// 1,024, default 64. A small total gets fewer (at least 16 units each). A pool
	// keeps the number it was opened with, also when it is adjusted.
	Stripes int

	// ExpireWait is how long [Ledger.Expire] waits for open order transactions,
	// 1 ms to 1 min, default 100 ms. When it has passed, the batch is halved
	// until each open transaction leaves only its own ID undecided; those tries
	// wait a tenth of it, 90 times at most, and the rest is undecided then.
	//
	// MariaDB counts in whole seconds, rounded down: by default it does not
	// wait at all. MySQL waits at least one second, by a session setting that
	// is set back after each batch.
	ExpireWait time.Duration
}

const (
	defaultStripes    = 64
	maxStripes        = 1024
	unitsPerStripe    = 16 // fewer than these, and splitting costs more than waiting
	defaultExpireWait = 100 * time.Millisecond
)

// Ledger implements [stock.Ledger] on a SQL database. It is safe for
// concurrent use.
type Ledger struct {
	db      *sql.DB
	dialect sqldialect.Dialect
	q       statements
	stripes int
	wait    time.Duration
	tight   tightPools
	turn    atomic.Int64         // of the stripes: orders sold about as they came meet on none
	layouts sync.Map             // SKU of a pool → *layout
	maria   atomic.Pointer[bool] // nil until the first Expire on MySQL or MariaDB
}

// New makes a ledger on db, whose dialect is postgres, mysql (also mariadb) or
// sqlite. The tables must have been made by [Migrations]. The ledger never
// closes db.
func New(db *sql.DB, dialect string, opts *Options) (*Ledger, error) {
	if db == nil {
		return nil, errors.New("sqlledger: db is nil")
	}
	d, err := sqldialect.Parse(dialect)
	if err != nil {
		return nil, fmt.Errorf("sqlledger: %w", err)
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Stripes == 0 {
		o.Stripes = defaultStripes
	}
	if o.ExpireWait == 0 {
		o.ExpireWait = defaultExpireWait
	}
	switch {
	case o.Stripes < 1 || o.Stripes > maxStripes:
		return nil, fmt.Errorf("sqlledger: Stripes is %d, want 1 to %d", o.Stripes, maxStripes)
	case o.ExpireWait < time.Millisecond || o.ExpireWait > time.Minute:
		return nil, fmt.Errorf("sqlledger: ExpireWait is %v, want 1ms to 1m", o.ExpireWait)
	}
	l := &Ledger{db: db, dialect: d, q: statementsFor(d), stripes: o.Stripes, wait: o.ExpireWait}
	l.turn.Store(rand.Int64N(maxStripes)) // processes don't go in step
	return l, nil
}
