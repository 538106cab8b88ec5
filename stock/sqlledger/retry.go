package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/firstcome/firstcome/internal/outage"
	"github.com/firstcome/firstcome/internal/sqldialect"
)

const (
	txTries   = 10
	txBackoff = 5 * time.Millisecond // times the number of tries, at most
)

// InTx runs work in a transaction of its own, at READ COMMITTED (SQLite: its
// only level): committed when work returns nil, rolled back otherwise. Where
// the database reports a conflict ([IsRetryable]), it runs work again, up to
// ten times in all; work must not have effects outside of its transaction.
//
// An error of the COMMIT itself that is no conflict leaves the outcome unknown:
// see [Ledger.Status].
func (l *Ledger) InTx(ctx context.Context, work func(tx *sql.Tx) error) error {
	for try := 1; ; try++ {
		err := sqldialect.InTx(ctx, l.db, l.isolation(), work)
		if err == nil || try == txTries || !IsRetryable(err) {
			return err
		}
		timer := time.NewTimer(rand.N(time.Duration(try) * txBackoff))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(err, fmt.Errorf("wait to try again: %w", context.Cause(ctx)))
		}
	}
}

// IsRetryable reports whether the database gave a transaction up because
// another was in its way (a deadlock, a serialization failure, a lock that was
// not to be had in time): nothing was committed, and the same work may be tried
// again in a new transaction.
//
// It knows the codes of pgx and lib/pq (by their SQLState method), of SQLite
// (by the Code method of modernc.org/sqlite, or the text of mattn/go-sqlite3)
// and of go-sql-driver/mysql (whose errors have no method for it: by the
// number at the head of their text).
func IsRetryable(err error) bool { return outage.Of(longPast, err) == outage.Contention }

// longPast is a context whose time is up: where the wait for the next try ran
// into the caller's deadline, the conflict before it stands.
var longPast = func() context.Context {
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	cancel()
	return ctx
}()
