package sqlledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/firstcome/firstcome/stock"
)

func TestExpire_GivesEachIDItsVerdict(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy stock.Unpaid
		unpaid stock.Verdict
		state  state
	}{
		{"lose units", stock.LoseUnits, stock.Free, expired},
		{"keep units", stock.KeepUnits, stock.Keep, held},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, nil, func(t *testing.T, e *env) {
				ctx := t.Context()
				e.openPool(t, stock.Pool{SKU: "ticket", Total: 100, Unpaid: c.policy})
				ids := e.placed(t, "ticket", 4, 1)
				none := e.hold("ticket", "ada", 1).ID
				wantErr(t, "sell", e.sellOne(ctx, ids[1]), nil)
				wantErr(t, "cancel", e.cancelOne(ctx, ids[2]), nil)
				wantErr(t, "sell", e.sellOne(ctx, ids[3]), nil)
				wantErr(t, "return", e.returnOne(ctx, ids[3]), nil)
				asked := append(ids, none, ids[1], none)
				want := []stock.Verdict{c.unpaid, stock.IsSold, stock.Free, stock.Free, stock.Free, stock.IsSold, stock.Free}
				for range 2 { // asking again changes nothing
					got, err := e.Expire(ctx, "ticket", asked)
					if err != nil || !slices.Equal(got, want) {
						t.Errorf("verdicts %v, %v; want %v", got, err, want)
					}
				}
				if s := e.state(t, ids[0]); s != c.state {
					t.Errorf("the unpaid order is %q, want %q", s, c.state)
				}
				if s := e.state(t, none); s != void {
					t.Errorf("the ID without an order is %q, want void", s)
				}
				if c.policy == stock.LoseUnits {
					wantErr(t, "sell", e.sellOne(ctx, ids[0]), stock.ErrExpired)
					e.audit(t, "ticket", 0, 1)
				} else {
					wantErr(t, "sell", e.sellOne(ctx, ids[0]), nil)
					e.audit(t, "ticket", 0, 2)
				}
			})
		})
	}
}

func TestExpire_FollowsThePolicyOfEachPool(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.openPool(t, stock.Pool{SKU: "keeps", Total: 100, Unpaid: stock.KeepUnits})
		e.openPool(t, stock.Pool{SKU: "loses", Items: []stock.Item{{SKU: "a", Total: 100}}})
		kept, lost := e.placed(t, "keeps", 1, 1)[0], e.placedBasket(t, "loses", line("a", 1))
		for range 2 {
			other := onEnv(t, e.db, e.dialect, nil) // a process that has opened neither
			for sku, want := range map[string]stock.Verdict{"keeps": stock.Keep, "loses": stock.Free} {
				id := map[string]stock.ID{"keeps": kept, "loses": lost}[sku]
				if got, err := other.Expire(ctx, sku, []stock.ID{id}); err != nil || got[0] != want {
					t.Errorf("%s: %v, %v; want %v", sku, got, err, want)
				}
			}
		}
		e.audit(t, "keeps", 1, 0)
		e.auditItems(t, "loses", [2]int64{0, 0})
		wantErr(t, "kept", e.sellOne(ctx, kept), nil)
		wantErr(t, "lost", e.sellOne(ctx, lost), stock.ErrExpired)
	})
}

func TestExpire_RefusesIDsOfAnotherPool(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		own, foreign := e.hold("ticket", "ada", 1).ID, e.hold("poster", "ada", 1).ID
		_, err := e.Expire(t.Context(), "ticket", []stock.ID{own, foreign})
		wantErr(t, "foreign ID", err, stock.ErrMismatch)
		if s := e.state(t, own); s != "" {
			t.Errorf("the other ID is %q, want untouched", s)
		}
		verdicts, err := e.Expire(t.Context(), "ticket", nil)
		if err != nil || len(verdicts) != 0 {
			t.Errorf("no IDs: %v, %v", verdicts, err)
		}
	})
}

func TestExpire_TakesMoreIDsThanFitInOneStatement(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 100)
		placed := e.placed(t, "ticket", 3, 1)
		ids := slices.Clone(placed)
		for len(ids) < 2*maxBatch+77 {
			ids = append(ids, e.hold("ticket", "ada", 1).ID)
		}
		verdicts, err := e.Expire(t.Context(), "ticket", ids)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range verdicts {
			if v != stock.Free {
				t.Errorf("verdict %d is %v", i, v)
			}
		}
		e.audit(t, "ticket", 0, 0)
	})
}

func TestExpire_AnOpenOrderLeavesOnlyItsOwnIDUndecided(t *testing.T) {
	// Case 30, the order first.
	eachServer(t, &Options{ExpireWait: 20 * time.Millisecond}, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 1000)
		var ids []stock.ID
		for range 100 {
			ids = append(ids, e.hold("ticket", "ada", 1).ID)
		}
		open := holdOf("ticket", "bob", 1, 1)
		ids = append(ids, open.ID)
		tx := e.begin(t)
		if _, err := e.Place(ctx, tx, open, "bob"); err != nil {
			t.Fatal(err)
		}
		verdicts, err := e.Expire(ctx, "ticket", ids)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range verdicts {
			if want := map[bool]stock.Verdict{false: stock.Free, true: stock.Undecided}[i == 100]; v != want {
				t.Errorf("verdict %d is %v, want %v", i, v, want)
			}
		}
		wantErr(t, "commit", tx.Commit(), nil)
		verdicts, err = e.Expire(ctx, "ticket", []stock.ID{open.ID})
		if err != nil || verdicts[0] != stock.Free || e.state(t, open.ID) != expired {
			t.Errorf("after the commit: %v, %v, %s", verdicts, err, e.state(t, open.ID))
		}
		wantErr(t, "sell", e.sellOne(ctx, open.ID), stock.ErrExpired)
	})
}

func TestExpire_AnOpenOrderOnSQLiteLeavesAllUndecidedAndNoTrace(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{1, 4} {
		e := newEnv(t, openDB(t, "sqlite"), "sqlite", &Options{ExpireWait: 5 * time.Millisecond})
		e.db.SetMaxOpenConns(conns)
		e.open(t, "ticket", 100)
		hold, other := e.hold("ticket", "ada", 1), e.hold("ticket", "bob", 1)
		tx := e.begin(t)
		if _, err := e.Place(t.Context(), tx, hold, "ada"); err != nil {
			t.Fatal(err)
		}
		verdicts, err := e.Expire(t.Context(), "ticket", []stock.ID{hold.ID, other.ID})
		if err != nil || !slices.Equal(verdicts, []stock.Verdict{stock.Undecided, stock.Undecided}) {
			t.Errorf("%d connections: %v, %v", conns, verdicts, err)
		}
		wantErr(t, "commit", tx.Commit(), nil)
		verdicts, err = e.Expire(t.Context(), "ticket", []stock.ID{hold.ID, other.ID})
		if err != nil || !slices.Equal(verdicts, []stock.Verdict{stock.Free, stock.Free}) {
			t.Errorf("%d connections, after the commit: %v, %v", conns, verdicts, err)
		}
	}
}

func TestExpire_WaitsForAnOpenOrderAndFollowsItsEnd(t *testing.T) {
	// Case 30, the order first, and Expire patient. (MariaDB waits in whole
	// seconds, so its lock must be waited for by a long bound.)
	eachServer(t, &Options{ExpireWait: time.Minute}, func(t *testing.T, e *env) {
		for _, commit := range []bool{true, false} {
			ctx := t.Context()
			sku := fmt.Sprint("commit ", commit)
			e.open(t, sku, 100)
			hold := e.hold(sku, "ada", 1)
			tx := e.begin(t)
			if _, err := e.Place(ctx, tx, hold, "ada"); err != nil {
				t.Fatal(err)
			}
			verdicts := make(chan []stock.Verdict)
			go func() {
				v, err := e.Expire(ctx, sku, []stock.ID{hold.ID})
				wantErr(t, "expire", err, nil)
				verdicts <- v
			}()
			e.awaitBlocked(t, 1)
			want := void
			if commit {
				want = expired
				wantErr(t, "commit", tx.Commit(), nil)
			} else {
				wantErr(t, "roll back", tx.Rollback(), nil)
			}
			if v := <-verdicts; v[0] != stock.Free || e.state(t, hold.ID) != want {
				t.Errorf("commit %v: verdict %v, state %s", commit, v, e.state(t, hold.ID))
			}
		}
	})
}

func TestExpire_AnOrderThatMeetsAnOpenVoidWaitsAndIsTooLate(t *testing.T) {
	// Case 30, Expire first.
	eachServer(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		hold := e.hold("ticket", "ada", 1)
		tx := e.begin(t)
		if _, err := e.claim(ctx, tx, &e.q, "ticket", []stock.ID{hold.ID}); err != nil {
			t.Fatal(err)
		}
		placed := make(chan error)
		go func() {
			_, err := e.place(ctx, hold, "ada")
			placed <- err
		}()
		e.awaitBlocked(t, 1)
		wantErr(t, "commit", tx.Commit(), nil)
		wantErr(t, "place", <-placed, stock.ErrTooLate)
		e.audit(t, "ticket", 0, 0)
	})
}

func TestExpire_AnOrderEitherStandsOrItsUnitGoesNeverBoth(t *testing.T) {
	// Case 30 at random. A unit is kept or freed, never both, never neither.
	for name, policy := range map[string]stock.Unpaid{"lose units": stock.LoseUnits, "keep units": stock.KeepUnits} {
		t.Run(name, func(t *testing.T) {
			each(t, &Options{ExpireWait: 20 * time.Millisecond}, func(t *testing.T, e *env) {
				e.db.SetMaxOpenConns(12)
				e.openPool(t, stock.Pool{SKU: "ticket", Total: 1000, Unpaid: policy})
				group, ctx := errgroup.WithContext(t.Context())
				group.SetLimit(6)
				for i := range 120 {
					group.Go(func() error { return e.raceOrderWithExpiry(ctx, uint64(i)+1, policy) })
				}
				if err := group.Wait(); err != nil {
					t.Error(err)
				}
				wantErr(t, "check", e.check(t.Context(), "ticket"), nil)
			})
		})
	}
}

// raceOrderWithExpiry lets an order, its sale and two Expires race.
func (e *env) raceOrderWithExpiry(ctx context.Context, claim uint64, policy stock.Unpaid) error {
	hold := holdOf("ticket", "ada", claim, 1)
	var placeErr, sellErr error
	var group errgroup.Group
	group.Go(func() error {
		_, placeErr = e.place(ctx, hold, "ada")
		sellErr = placeErr
		if placeErr == nil {
			sellErr = e.sellOne(ctx, hold.ID)
		}
		return nil
	})
	verdicts := make([]stock.Verdict, 2)
	for i := range verdicts {
		group.Go(func() error {
			v, err := e.Expire(ctx, "ticket", []stock.ID{hold.ID})
			if err == nil {
				verdicts[i] = v[0]
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	final := []stock.Verdict{stock.Undecided}
	for final[0] == stock.Undecided { // while others keep SQLite's one lock
		var err error
		if final, err = e.Expire(ctx, "ticket", []stock.ID{hold.ID}); err != nil {
			return err
		}
	}
	freed := slices.Contains(slices.Concat(verdicts, final), stock.Free)
	switch {
	case sellErr == nil:
		if freed || final[0] != stock.IsSold {
			return fmt.Errorf("sold, and the verdicts are %v, at last %v", verdicts, final)
		}
	case placeErr == nil && policy == stock.KeepUnits:
		return fmt.Errorf("placed and not sold: %w", sellErr)
	case placeErr == nil:
		if !errors.Is(sellErr, stock.ErrExpired) || final[0] != stock.Free {
			return fmt.Errorf("placed, %w, and the last verdict is %v", sellErr, final)
		}
	default:
		if !errors.Is(placeErr, stock.ErrTooLate) && !errors.Is(placeErr, stock.ErrExpired) || final[0] != stock.Free {
			return fmt.Errorf("%w, and the last verdict is %v", placeErr, final)
		}
	}
	return nil
}

func TestExpire_ManyCallersWithTheSameIDsDoNotDeadlock(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.open(t, "ticket", 1000)
		ids := e.placed(t, "ticket", 20, 1)
		for range 60 {
			ids = append(ids, e.hold("ticket", "ada", 1).ID)
		}
		var wg sync.WaitGroup
		for i := range 6 {
			mine := slices.Clone(ids)
			if i%2 == 0 {
				slices.Reverse(mine)
			}
			wg.Go(func() {
				verdicts, err := e.Expire(t.Context(), "ticket", mine)
				wantErr(t, "expire", err, nil)
				for _, v := range verdicts {
					if v != stock.Free {
						t.Errorf("verdict %v", v)
					}
				}
			})
		}
		wg.Wait()
		e.audit(t, "ticket", 0, 0)
	})
}

func TestExpire_LeavesNoSettingBehind(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		e.db.SetMaxOpenConns(1)
		e.open(t, "ticket", 100)
		setting := map[string]string{
			"postgres": `SHOW lock_timeout`, "mysql": `SELECT @@innodb_lock_wait_timeout`, "sqlite": `PRAGMA busy_timeout`,
		}[e.dialect]
		var before, after string
		if err := e.db.QueryRowContext(t.Context(), setting).Scan(&before); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Expire(t.Context(), "ticket", []stock.ID{e.hold("ticket", "ada", 1).ID}); err != nil {
			t.Fatal(err)
		}
		if err := e.db.QueryRowContext(t.Context(), setting).Scan(&after); err != nil {
			t.Fatal(err)
		}
		if before != after {
			t.Errorf("%s: %s before, %s after", setting, before, after)
		}
	})
}

func TestExpire_SpeaksToMySQLProperToo(t *testing.T) {
	// MariaDB stands in for MySQL: it takes the session's setting as well.
	t.Parallel()
	e := newEnv(t, openDB(t, "mysql"), "mysql", nil)
	maria := false
	e.maria.Store(&maria)
	e.db.SetMaxOpenConns(1)
	e.open(t, "ticket", 100)
	id := e.placed(t, "ticket", 1, 1)[0]
	verdicts, err := e.Expire(t.Context(), "ticket", []stock.ID{id, e.hold("ticket", "ada", 1).ID})
	if err != nil || !slices.Equal(verdicts, []stock.Verdict{stock.Free, stock.Free}) {
		t.Errorf("%v, %v", verdicts, err)
	}
	var seconds int
	if err := e.db.QueryRowContext(t.Context(), `SELECT @@innodb_lock_wait_timeout`).Scan(&seconds); err != nil || seconds != 50 {
		t.Errorf("the session's bound is %d s, %v; want the server's 50", seconds, err)
	}
}

func TestExpire_ABrokenDatabaseIsAnErrorAndNoVerdict(t *testing.T) {
	t.Parallel()
	e := newEnv(t, openDB(t, "sqlite"), "sqlite", nil)
	if _, err := e.db.ExecContext(t.Context(), `DROP TABLE firstcome_stock_reservation`); err != nil {
		t.Fatal(err)
	}
	verdicts, err := e.Expire(t.Context(), "ticket", []stock.ID{e.hold("ticket", "ada", 1).ID})
	if err == nil || verdicts != nil {
		t.Errorf("%v, %v", verdicts, err)
	}
}
