package sqlledger

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Each guard is taken away, and a scenario that passes with it must fail
// without: so the tests are known to see what they claim to see.

// without takes a part out of a statement, or ends the test if it is not there.
func without(t *testing.T, statement *string, part, instead string) {
	t.Helper()
	if !strings.Contains(*statement, part) {
		t.Fatalf("%q is not in %q", part, *statement)
	}
	*statement = strings.ReplaceAll(*statement, part, instead)
}

// withoutRoomGuard counts beyond the total.
func withoutRoomGuard(t *testing.T, e *env) {
	t.Helper()
	if e.q.sellAtOnce != "" {
		without(t, &e.q.sellAtOnce, "s.sold + r.quantity <= s.total", "s.total >= 0")
	}
	without(t, &e.q.move, "<= total", "<= total + 1000000")
	without(t, &e.q.readStripes, "total,", "total + 1000000,")
}

func TestMutant_WithoutTheRoomGuardTheConstraintRefuses(t *testing.T) {
	each(t, &Options{Stripes: 2}, func(t *testing.T, e *env) {
		withoutRoomGuard(t, e)
		e.open(t, "ticket", 32)
		ids := e.placed(t, "ticket", 3, 16)
		sold := 0
		for _, id := range ids {
			if e.sellOne(t.Context(), id) == nil {
				sold++
			}
		}
		if sold > 2 {
			t.Errorf("%d orders of 16 sold of 32 units", sold)
		}
		wantErr(t, "check", e.check(t.Context(), "ticket"), nil)
	})
}

func TestMutant_WithoutRoomGuardAndConstraintIsCaught(t *testing.T) {
	each(t, &Options{Stripes: 2}, func(t *testing.T, e *env) {
		withoutRoomGuard(t, e)
		drop := `ALTER TABLE firstcome_stock_sold DROP CONSTRAINT firstcome_stock_sold_within_total`
		if e.dialect == "sqlite" {
			drop = `PRAGMA ignore_check_constraints = 1`
			e.db.SetMaxOpenConns(1)
		}
		if _, err := e.db.ExecContext(t.Context(), drop); err != nil {
			t.Fatal(err)
		}
		if err := oversell(t.Context(), e, "ticket", 100, 150); err == nil {
			t.Error("the mutant was not caught")
		}
	})
}

func TestMutant_WithoutTheEpochCheckIsCaught(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		without(t, &e.q.place, " AND epoch = ", " AND epoch <= 1000000 + ")
		if err := raiseDuringOrder(t, e); err == nil {
			t.Error("the mutant was not caught")
		}
	})
}

func TestMutant_WithoutTheShareLockIsCaught(t *testing.T) {
	// On PostgreSQL. MySQL's INSERT … SELECT locks what it reads at its default
	// level; the test's transactions run at that one.
	t.Parallel()
	e := newEnv(t, openDB(t, "postgres"), "postgres", nil)
	without(t, &e.q.place, "FOR SHARE OF firstcome_stock_gate", "")
	if err := raiseDuringOrder(t, e); err == nil {
		t.Error("the mutant was not caught")
	}
}

func TestMutant_WithoutTheEndingMarkIsSlowerOnly(t *testing.T) {
	t.Parallel()
	e := newEnv(t, openDB(t, "postgres"), "postgres", nil)
	without(t, &e.q.place, e.Ledger.dialect.Rebind(notEnding), "")
	if err := raiseDuringOrder(t, e); err != nil {
		t.Error(err)
	}
}

// expireThenOrder expires an ID before its order comes, and reports a unit that
// was given to both.
func expireThenOrder(t *testing.T, e *env) error {
	e.open(t, "ticket", 100)
	hold := e.hold("ticket", "ada", 1)
	verdicts, err := e.Expire(t.Context(), "ticket", []stock.ID{hold.ID})
	if err != nil {
		return err
	}
	_, err = e.place(t.Context(), hold, "ada")
	if verdicts[0] == stock.Free && err == nil {
		return errors.New("the unit was freed and the order stands")
	}
	return nil
}

// expireDuringOrder expires an ID whose order is still open.
func expireDuringOrder(t *testing.T, e *env) error {
	e.open(t, "poster", 100)
	hold := e.hold("poster", "ada", 1)
	tx := e.begin(t)
	if _, err := e.Place(t.Context(), tx, hold, "ada"); err != nil {
		return err
	}
	verdicts, err := e.Expire(t.Context(), "poster", []stock.ID{hold.ID})
	if err := errors.Join(err, tx.Commit()); err != nil {
		return err
	}
	if verdicts[0] != stock.Undecided && e.state(t, hold.ID) == held {
		return fmt.Errorf("verdict %v, and the order stands", verdicts[0])
	}
	return nil
}

func TestMutant_ExpireThatOnlyLooksIsCaught(t *testing.T) {
	t.Parallel()
	for _, mutant := range []bool{false, true} {
		e := newEnv(t, openDB(t, "postgres"), "postgres", &Options{ExpireWait: 5 * time.Millisecond})
		if mutant {
			without(t, &e.q.void, "INSERT"+insertRow+"VALUES @ ON CONFLICT (id) DO NOTHING",
				`SELECT FROM (VALUES @) AS v (`+rowColumns+`) WHERE v.id NOT IN (SELECT id FROM firstcome_stock_reservation)`)
		}
		for name, scenario := range map[string]func(*testing.T, *env) error{
			"the order after it": expireThenOrder, "the order around it": expireDuringOrder,
		} {
			if err := scenario(t, e); (err != nil) != mutant {
				t.Errorf("mutant %v, %s: %v", mutant, name, err)
			}
		}
	}
}

func TestMutant_WithoutTheRetiredCheckIsCaught(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		without(t, &e.q.place, " AND retired = 0", "")
		if err := retireDuringOrder(t, e, false); err == nil {
			t.Error("the mutant was not caught")
		}
	})
}

func TestMutant_RetireThatDoesNotLookForOrdersIsCaught(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		without(t, &e.q.someHeld, "state = 'held'", "state = 'none'")
		if err := retireDuringOrder(t, e, true); err == nil {
			t.Error("the mutant was not caught")
		}
	})
}

func TestMutant_SellingAtOnceWhatHasPartsIsCaught(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		r := ""
		if e.dialect == "mysql" {
			r = "r."
		}
		without(t, &e.q.sellAtOnce, " AND "+r+"asked = '' AND "+r+"released_units = 0", "")
		if err := sellReleased(t.Context(), e); err == nil {
			t.Error("the mutant was not caught")
		}
	})
}

func TestMutant_WithoutTheTermsLockIsCaught(t *testing.T) {
	eachServer(t, nil, func(t *testing.T, e *env) {
		without(t, &e.q.lockTerms, " FOR UPDATE", "")
		if err := adjustDuringAdjust(t, e); err == nil {
			t.Error("the mutant was not caught")
		}
	})
}

func TestMutant_LoweringWithoutTheStripesLocksNeverSellsMoreThanTheTotal(t *testing.T) {
	eachServer(t, &Options{Stripes: 2}, func(t *testing.T, e *env) {
		without(t, &e.q.lockStripes, " FOR UPDATE", "")
		for _, guard := range []string{"the statement", "the constraint"} {
			if guard == "the constraint" {
				without(t, &e.q.setTotal, "AND sold <= ", "AND total >= 0 * ")
			}
			if err := lowerDuringSale(t, e, guard, true); err == nil || errors.Is(err, stock.ErrOver) {
				t.Errorf("%s: %v, want its own refusal", guard, err)
			}
			wantErr(t, guard, e.check(t.Context(), guard), nil)
		}
	})
}
