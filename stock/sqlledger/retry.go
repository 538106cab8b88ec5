package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

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
func IsRetryable(err error) bool { return conflictOf(err) != noConflict }

// conflict is the way in which two transactions met.
type conflict uint8

const (
	noConflict conflict = iota
	collision           // deadlock or serialization failure: try again
	timeout             // a lock was not to be had in time
)

// conflictOf looks for a database's error in the tree of err.
func conflictOf(err error) conflict {
	if err == nil {
		return noConflict
	}
	switch wrapped := err.(type) { //nolint:errorlint // the walk through the tree itself
	case interface{ SQLState() string }:
		return conflictOfSQLState(wrapped.SQLState())
	case interface{ Code() int }:
		return conflictOfSQLite(wrapped.Code())
	case interface{ Unwrap() []error }:
		for _, e := range wrapped.Unwrap() {
			if c := conflictOf(e); c != noConflict {
				return c
			}
		}
		return noConflict
	case interface{ Unwrap() error }:
		return conflictOf(wrapped.Unwrap())
	default:
		return conflictOfText(err.Error())
	}
}

func conflictOfSQLState(code string) conflict {
	switch code {
	case "40001", "40P01": // serialization failure, deadlock
		return collision
	case "55P03": // lock not available
		return timeout
	default:
		return noConflict
	}
}

func conflictOfSQLite(code int) conflict {
	switch code & 0xff { // the rest of it gives details
	case 5, 6: // busy, locked
		return timeout
	default:
		return noConflict
	}
}

func conflictOfText(text string) conflict {
	if rest, ok := strings.CutPrefix(text, "Error "); ok && len(rest) >= 4 {
		switch rest[:4] {
		case "1213", "1020": // deadlock; the row has changed since the snapshot
			return collision
		case "1205": // lock wait timeout
			return timeout
		}
	}
	if strings.HasPrefix(text, "database is locked") || strings.HasPrefix(text, "database table is locked") {
		return timeout
	}
	return noConflict
}
