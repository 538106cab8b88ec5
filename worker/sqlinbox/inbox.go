package sqlinbox

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/worker"
)

// Inbox keeps the marks in the table firstcome_inbox. All of its methods may be
// called from many goroutines.
type Inbox struct {
	db      *sql.DB
	dialect sqldialect.Dialect
	sql     statements
	opts    Options
}

var _ worker.TxInbox = (*Inbox)(nil)

// Executor is what [Inbox.MarkTx] needs of a transaction: *sql.Tx has it, and so
// do those of sqlx, bun and gorm.
type Executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// New builds an inbox on a database of a dialect: postgres, mysql (MariaDB too)
// or sqlite. The database stays the caller's to close. The table is made by
// [Migrations].
func New(db *sql.DB, dialect string, opts *Options) (*Inbox, error) {
	if db == nil {
		return nil, errors.New("sqlinbox: db is nil")
	}
	d, err := sqldialect.Parse(dialect)
	if err != nil {
		return nil, fmt.Errorf("sqlinbox: %w", err)
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Inbox{db: db, dialect: d, sql: statementsFor(d), opts: o}, nil
}

// Seen implements [worker.Inbox].
func (i *Inbox) Seen(ctx context.Context, handler, eventID string) (bool, error) {
	var one int
	err := i.db.QueryRowContext(ctx, i.sql.seen, handler, column(eventID)).Scan(&one)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up event: %w", err)
	}
	return true, nil
}

// Mark implements [worker.Inbox], in a transaction of its own.
func (i *Inbox) Mark(ctx context.Context, handler, eventID string) error {
	_, err := i.MarkTx(ctx, i.db, handler, eventID)
	return err
}

// MarkTx marks the event in the caller's transaction and reports whether it was
// not marked before. If another transaction is marking it, MarkTx waits for that
// one's end. It comes before the effect, so that the two are not done twice.
func (i *Inbox) MarkTx(ctx context.Context, tx Executor, handler, eventID string) (first bool, err error) {
	n, err := sqldialect.Affected(ctx, tx, i.sql.mark, handler, column(eventID))
	if err != nil {
		return false, fmt.Errorf("mark event: %w", err)
	}
	return n > 0, nil
}

// errMarked rolls back the transaction of a repeat.
var errMarked = errors.New("marked before")

// InTx implements [worker.TxInbox].
func (i *Inbox) InTx(ctx context.Context, handler, eventID string, work func(tx *sql.Tx) error) (ran bool, err error) {
	err = sqldialect.InTx(ctx, i.db, i.opts.TxOptions, func(tx *sql.Tx) error {
		// First of all: the row is the lock that a second delivery waits at,
		// and on SQLite it makes this a writing transaction from the start.
		first, err := i.MarkTx(ctx, tx, handler, eventID)
		if err != nil {
			return err
		}
		if !first {
			return errMarked
		}
		return work(tx)
	})
	switch {
	case errors.Is(err, errMarked):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}

// Count returns how many events the handler has finished, as far as the rows are
// kept. It reads them all: for audits, not for each request.
func (i *Inbox) Count(ctx context.Context, handler string) (int64, error) {
	var n int64
	if err := i.db.QueryRowContext(ctx, i.sql.count, handler).Scan(&n); err != nil {
		return 0, fmt.Errorf("count events: %w", err)
	}
	return n, nil
}

// Database is what the inbox was built on. A dead letter store on the same one
// ends its letters in the transactions of [Inbox.InTx].
func (i *Inbox) Database() *sql.DB { return i.db }

// Retention is how long marks are kept, 0 for ever. worker.New compares it with
// the time over which the broker may repeat.
func (i *Inbox) Retention() time.Duration {
	if i.opts.Retention == Forever {
		return 0
	}
	return i.opts.Retention
}

// column is the event's ID as every database can hold it: what is too long or no
// text stands as its hash, and so does what looks like one, so that two IDs
// never meet.
func column(eventID string) string {
	const prefix, longest = "sha256:", 200
	if len(eventID) <= longest && utf8.ValidString(eventID) &&
		!strings.ContainsRune(eventID, 0) && !strings.HasPrefix(eventID, prefix) {
		return eventID
	}
	sum := sha256.Sum256([]byte(eventID))
	return prefix + hex.EncodeToString(sum[:])
}
