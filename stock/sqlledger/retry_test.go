package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/firstcome/firstcome/stock"
)

// sqlState is an error as pgx and lib/pq make them.
type sqlState string

func (s sqlState) Error() string    { return "ERROR: whatever (SQLSTATE " + string(s) + ")" }
func (s sqlState) SQLState() string { return string(s) }

// sqliteCode is an error as modernc.org/sqlite makes them.
type sqliteCode int

func (c sqliteCode) Error() string { return fmt.Sprintf("whatever (%d)", int(c)) }
func (c sqliteCode) Code() int     { return int(c) }

func TestIsRetryable_KnowsConflictsByTheirCodes(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		sqlState("40001"): true, sqlState("40P01"): true, sqlState("55P03"): true,
		sqlState("23505"): false, sqlState("57P01"): false, sqlState("08006"): false,
		sqliteCode(5): true, sqliteCode(517): true, sqliteCode(6): true, sqliteCode(19): false,
		errors.New("Error 1213 (40001): Deadlock found"):           true,
		errors.New("Error 1205 (HY000): Lock wait timeout"):        true,
		errors.New("Error 1020 (HY000): Record has changed"):       true,
		errors.New("Error 1062 (23000): Duplicate entry 'a 1213'"): false,
		errors.New("Error 12"):                                     false,
		errors.New("database is locked"):                           true,
		errors.New("database table is locked: orders"):             true,
		context.DeadlineExceeded:                                   false,
		stock.ErrLedger:                                            false,
		sql.ErrConnDone:                                            false,
	} {
		for _, wrapped := range []error{err, fmt.Errorf("sell: %w", err), errors.Join(errors.New("first"), fmt.Errorf("then: %w", err))} {
			if got := IsRetryable(wrapped); got != want {
				t.Errorf("%v: %v, want %v", wrapped, got, want)
			}
		}
	}
	if IsRetryable(nil) {
		t.Error("nil is retryable")
	}
}

func TestIsRetryable_KnowsTheDatabasesOwnDeadlock(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		ids := e.placed(t, "ticket", 2, 1)
		// Two transactions, each selling the same two orders one by one in
		// another order, as SellAll would not.
		first, second := e.begin(t), e.begin(t)
		wantErr(t, "first", e.Sell(t.Context(), first, ids[0]), nil)
		if _, err := e.lock(t.Context(), second, ids[1]); err != nil {
			t.Fatal(err)
		}
		var group errgroup.Group
		group.Go(func() error { return endBy(first, e.Sell(t.Context(), first, ids[1])) })
		group.Go(func() error { return endBy(second, e.Sell(t.Context(), second, ids[0])) })
		if err := group.Wait(); !IsRetryable(err) {
			t.Errorf("%v is not retryable", err)
		}
		wantErr(t, "check", e.check(t.Context(), "ticket"), nil)
	})
}

// endBy commits a transaction whose last step has not failed.
func endBy(tx *sql.Tx, err error) error {
	if err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

func TestIsRetryable_KnowsSerializationFailures(t *testing.T) {
	t.Parallel()
	e := newEnv(t, openDB(t, "postgres"), "postgres", nil)
	e.open(t, "ticket", 100)
	id := e.placed(t, "ticket", 1, 1)[0]
	tx, err := e.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := e.readStripes(t.Context(), tx, e.q.readStripes, "ticket", 0); err != nil { // takes the snapshot
		t.Fatal(err)
	}
	wantErr(t, "sell", e.sellOne(t.Context(), id), nil)
	if err := e.Sell(t.Context(), tx, id); !IsRetryable(err) {
		t.Errorf("%v is not retryable", err)
	}
}

func TestInTx_RunsAgainAfterConflictsOnly(t *testing.T) {
	t.Parallel()
	e := newEnv(t, openDB(t, "sqlite"), "sqlite", nil)
	other := errors.New("other")
	for _, c := range []struct {
		name  string
		err   error
		fails int
		want  error
		tries int
	}{
		{"none", nil, 0, nil, 1},
		{"two conflicts", sqlState("40001"), 2, nil, 3},
		{"conflicts without end", sqlState("40P01"), 1000, sqlState("40P01"), txTries},
		{"another error", other, 1, other, 1},
	} {
		tries := 0
		err := e.InTx(t.Context(), func(*sql.Tx) error {
			if tries++; tries <= c.fails {
				return c.err
			}
			return nil
		})
		wantErr(t, c.name, err, c.want)
		if tries != c.tries {
			t.Errorf("%s: %d tries, want %d", c.name, tries, c.tries)
		}
	}
}

func TestInTx_StopsTryingWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	e := newEnv(t, openDB(t, "sqlite"), "sqlite", nil)
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	err := e.InTx(ctx, func(*sql.Tx) error {
		tries++
		cancel()
		return sqlState("40001")
	})
	if tries != 1 || !IsRetryable(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("%d tries, %v", tries, err)
	}
}
