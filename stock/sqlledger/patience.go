package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// inPatientSQLite bounds the wait for SQLite's one lock, on a connection that
// gets its own bound back. Where all connections are in use (often there is
// only one), that is waiting for the same lock.
func (l *Ledger) inPatientSQLite(ctx context.Context, wait time.Duration, work func(tx Executor, q *statements) error) (err error) {
	soon, cancel := context.WithTimeout(ctx, wait)
	conn, err := l.db.Conn(soon)
	cancel()
	if err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return errNoConnection{}
		}
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var before int64
	if err := one(ctx, conn, `PRAGMA busy_timeout`, nil, []any{&before}); err != nil {
		return fmt.Errorf("read the wait: %w", err)
	}
	if err := setBusyTimeout(ctx, conn, wait.Milliseconds()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, setBusyTimeout(context.WithoutCancel(ctx), conn, before)) }()
	return onConn(ctx, conn, nil, func(tx *sql.Tx) error { return work(tx, &l.q) })
}

func setBusyTimeout(ctx context.Context, conn *sql.Conn, ms int64) error {
	if _, err := conn.ExecContext(ctx, fmt.Sprintf(`PRAGMA busy_timeout = %d`, ms)); err != nil {
		return fmt.Errorf("bound the wait: %w", err)
	}
	return nil
}

// errNoConnection is what waiting for the only connection comes to; to
// [IsRetryable] it is a lock that was not to be had in time.
type errNoConnection struct{}

// Error names the code, as the driver's texts do.
func (errNoConnection) Error() string { return "all connections are in use (5)" }

// Code is SQLITE_BUSY.
func (errNoConnection) Code() int { return 5 }

// inPatientMySQL bounds the waits of single statements where it can (MariaDB),
// else those of the session, which gets the server's own bound back.
func (l *Ledger) inPatientMySQL(ctx context.Context, wait time.Duration, work func(tx Executor, q *statements) error) (err error) {
	maria, err := l.isMariaDB(ctx)
	if err != nil {
		return err
	}
	seconds := int64(wait / time.Second)
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	q := l.q
	if maria {
		bound := fmt.Sprintf("SET STATEMENT innodb_lock_wait_timeout = %d FOR ", seconds)
		q.lockRows, q.void, q.setStates = bound+q.lockRows, bound+q.void, bound+q.setStates
	} else {
		if err := setLockWait(ctx, conn, fmt.Sprint(max(1, seconds))); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, setLockWait(context.WithoutCancel(ctx), conn, "DEFAULT")) }()
	}
	return onConn(ctx, conn, l.isolation(), func(tx *sql.Tx) error { return work(tx, &q) })
}

func setLockWait(ctx context.Context, conn *sql.Conn, value string) error {
	if _, err := conn.ExecContext(ctx, `SET SESSION innodb_lock_wait_timeout = `+value); err != nil {
		return fmt.Errorf("bound the wait: %w", err)
	}
	return nil
}

// isMariaDB asks the server once what it is.
func (l *Ledger) isMariaDB(ctx context.Context) (bool, error) {
	if known := l.maria.Load(); known != nil {
		return *known, nil
	}
	var version string
	if err := one(ctx, l.db, `SELECT VERSION()`, nil, []any{&version}); err != nil {
		return false, fmt.Errorf("read the server's version: %w", err)
	}
	maria := strings.Contains(strings.ToLower(version), "mariadb")
	l.maria.Store(&maria)
	return maria, nil
}

// onConn is [sqldialect.InTx] on one connection.
func onConn(ctx context.Context, conn *sql.Conn, opts *sql.TxOptions, work func(tx *sql.Tx) error) error {
	tx, err := conn.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // a no-op after Commit
	if err := work(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
