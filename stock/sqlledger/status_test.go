package sqlledger

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
)

func TestStatus_TellsEveryState(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		ids := e.placed(t, "ticket", 4, 2)
		voided, missing := e.hold("ticket", "ada", 1).ID, e.hold("ticket", "ada", 1).ID
		wantErr(t, "sell", e.sellOne(ctx, ids[1]), nil)
		wantErr(t, "cancel", e.cancelOne(ctx, ids[2]), nil)
		if _, err := e.Expire(ctx, "ticket", []stock.ID{ids[3], voided}); err != nil {
			t.Fatal(err)
		}
		for i, want := range []stock.State{stock.Held, stock.Sold, stock.Cancelled, stock.Expired} {
			got, err := e.Status(ctx, ids[i])
			if err != nil || got.State != want || got.ID != ids[i] || got.SKU != "ticket" || got.Quantity != 2 || got.Epoch != 1 || got.Void {
				t.Errorf("%v: %+v, %v", want, got, err)
			}
		}
		if got, err := e.Status(ctx, voided); err != nil || !got.Void || got.State != stock.Expired {
			t.Errorf("void: %+v, %v", got, err)
		}
		for range 2 { // asking leaves nothing behind
			_, err := e.Status(ctx, missing)
			wantErr(t, "missing", err, stock.ErrNotFound)
		}
		e.audit(t, "ticket", 2, 2)
	})
}

func TestStatus_WaitsForATransactionThatIsStillOpen(t *testing.T) {
	// As when the client of a COMMIT is gone and the server has not noticed.
	eachServer(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		hold := e.hold("ticket", "ada", 1)
		status := func() chan Record {
			answer := make(chan Record)
			go func() {
				r, err := e.Status(ctx, hold.ID)
				wantErr(t, "status", err, nil)
				answer <- r
			}()
			e.awaitBlocked(t, 1)
			return answer
		}
		tx := e.begin(t)
		if _, err := e.Place(ctx, tx, hold, "ada"); err != nil {
			t.Fatal(err)
		}
		answer := status()
		wantErr(t, "commit", tx.Commit(), nil)
		if r := <-answer; r.State != stock.Held {
			t.Errorf("after the order: %v", r.State)
		}
		tx = e.begin(t)
		wantErr(t, "sell", e.Sell(ctx, tx, hold.ID), nil)
		answer = status()
		wantErr(t, "commit", tx.Commit(), nil)
		if r := <-answer; r.State != stock.Sold {
			t.Errorf("after the sale: %v", r.State)
		}
	})
}

func TestStatus_ALostCommitIsAskedFor(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(testenv.Postgres(t).NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	dialer := faulty.NewDialer()
	config.DialFunc = dialer.DialContext
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = db.Close() })
	e := newEnv(t, db, "postgres", nil)
	e.open(t, "ticket", 100)

	// BEGIN names READ COMMITTED.
	commit := []faulty.Match{faulty.Contains("commit"), faulty.Not(faulty.Contains("begin"))}
	for _, c := range []struct {
		name string
		plan func(n int, matches ...faulty.Match) *faulty.Fault
		want error
	}{{"the server has committed", dialer.CutReply, nil}, {"the server never heard of it", dialer.CutRequest, stock.ErrNotFound}} {
		hold := e.hold("ticket", "ada", 1)
		fault := c.plan(1, commit...)
		if _, err := e.place(t.Context(), hold, "ada"); err == nil || IsRetryable(err) {
			t.Errorf("%s: place gives %v", c.name, err)
		}
		fault.MustFire(t)
		_, err := e.Status(t.Context(), hold.ID)
		wantErr(t, c.name, err, c.want)
		existed, err := e.place(t.Context(), hold, "ada") // the same ID again
		if err != nil || existed != (c.want == nil) {
			t.Errorf("%s, again: existed %v, %v", c.name, existed, err)
		}

		fault = c.plan(1, commit...)
		if err := e.sellOne(t.Context(), hold.ID); err == nil || IsRetryable(err) {
			t.Errorf("%s: sell gives %v", c.name, err)
		}
		fault.MustFire(t)
		record, err := e.Status(t.Context(), hold.ID)
		if err != nil || (record.State == stock.Sold) != (c.want == nil) {
			t.Errorf("%s: after the sale %v, %v", c.name, record.State, err)
		}
		wantErr(t, "sell again", e.sellOne(t.Context(), hold.ID), nil)
	}
	e.audit(t, "ticket", 0, 2)
}

// wholeLife takes pools from their opening to their end, step by step.
func wholeLife(t *testing.T, e *env) {
	t.Helper()
	lifeOfOneSKU(t, e)
	lifeOfBaskets(t, e)
}

func lifeOfBaskets(t *testing.T, e *env) {
	t.Helper()
	ctx := t.Context()
	e.openFair(t, "fair", 100, 40)
	ids := []stock.ID{
		e.placedBasket(t, "fair", line("b", 20), line("a", 50)), e.placedBasket(t, "fair", line("a", 5), line("b", 5)),
		e.placedBasket(t, "fair", line("a", 1)), e.placedBasket(t, "fair", line("b", 30)),
	}
	wantErr(t, "extend", e.extendOne(ctx, ids[0], time.UnixMilli(1_950_000_000_000)), nil)
	e.auditItems(t, "fair", [2]int64{56, 0}, [2]int64{55, 0})
	wantErr(t, "sell", e.sellOne(ctx, ids[0]), nil)
	wantErr(t, "sell a part", e.sellOne(ctx, ids[1], line("b", 5)), nil)
	wantItem(t, "sell too many", e.sellOne(ctx, ids[3]), "b", stock.ErrLedger)
	if _, err := e.Adjust(ctx, e.change("fair", 1, line("a", -50), line("b", 15))); err != nil {
		t.Errorf("adjust: %v", err)
	}
	err := e.in(ctx, func(tx *sql.Tx) error { return e.SellAll(ctx, tx, ids[3], ids[0]) })
	wantErr(t, "sell all", err, nil)
	wantErr(t, "return", e.returnOne(ctx, ids[1]), nil)
	wantErr(t, "retire", e.Retire(ctx, "fair"), stock.ErrInUse)
	wantErr(t, "cancel", e.cancelOne(ctx, ids[2]), nil)
	wantErr(t, "retire", e.Retire(ctx, "fair"), nil)
	e.auditItems(t, "fair", [2]int64{0, 50}, [2]int64{0, 50})
	if got := e.found(t, "fair", ids[0]); got.Quantity != 70 || len(got.Lines) != 2 {
		t.Errorf("found %+v", got)
	}
	_, err = e.place(ctx, e.basket("fair", "ada", line("a", 1)), "ada")
	wantErr(t, "place", err, stock.ErrRetired)
}

// lifeOfOneSKU sells one order, expires another, and returns the first.
func lifeOfOneSKU(t *testing.T, e *env) {
	t.Helper()
	ctx := t.Context()
	e.open(t, "ticket", 100)
	ids := e.placed(t, "ticket", 3, 30)
	err := e.in(ctx, func(tx *sql.Tx) error { return e.SellAll(ctx, tx, ids[0], ids[1]) })
	wantErr(t, "sell", err, nil)
	wantErr(t, "sell", e.sellOne(ctx, ids[0]), nil)
	verdicts, err := e.Expire(ctx, "ticket", []stock.ID{ids[2], ids[1], e.hold("ticket", "ada", 1).ID})
	if err != nil || verdicts[0] != stock.Free || verdicts[1] != stock.IsSold || verdicts[2] != stock.Free {
		t.Errorf("expire: %v, %v", verdicts, err)
	}
	wantErr(t, "return", e.returnOne(ctx, ids[0]), nil)
	e.audit(t, "ticket", 0, 30)
	if _, raised, err := e.RaiseEpoch(ctx, "ticket", 1); err != nil || !raised {
		t.Errorf("raised %v, %v", raised, err)
	}
	wantErr(t, "save mark", e.SaveMark(ctx, "ticket", stock.Mark{Epoch: 2, Seq: 5}), nil)
	if entries, err := e.Entries(ctx, "ticket", stock.ID{}, 10); err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if _, err := e.place(ctx, e.hold("ticket", "ada", 1), "ada"); err == nil {
		t.Error("the old epoch is not fenced")
	}
}

func TestLedger_NeedsNoSessionSoThatAPoolerMayStandBetween(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) (*sql.DB, string){
		"postgres, simple protocol": func(t *testing.T) (*sql.DB, string) {
			return mustOpen(t, "pgx", testenv.Postgres(t).NewDatabase(t)+"&default_query_exec_mode=simple_protocol"), "postgres"
		},
		"postgres, no prepared statements": func(t *testing.T) (*sql.DB, string) {
			return mustOpen(t, "pgx", testenv.Postgres(t).NewDatabase(t)+"&default_query_exec_mode=exec"), "postgres"
		},
		"mariadb, prepared statements": func(t *testing.T) (*sql.DB, string) {
			return mustOpen(t, "mysql", testenv.MariaDB(t).NewDatabase(t)+"&interpolateParams=false"), "mysql"
		},
		"mariadb, found rows": func(t *testing.T) (*sql.DB, string) {
			return mustOpen(t, "mysql", testenv.MariaDB(t).NewDatabase(t)+"&clientFoundRows=true&parseTime=true"), "mysql"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, dialect := open(t)
			e := newEnv(t, db, dialect, nil)
			db.SetMaxIdleConns(-1) // each transaction on a connection of its own
			wholeLife(t, e)
		})
	}
}

func mustOpen(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestMigrations_GoDownAgain(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		wholeLife(t, e)
		provider := newProvider(t, e.db, e.dialect)
		if _, err := provider.DownTo(context.WithoutCancel(t.Context()), 0); err != nil {
			t.Fatal(err)
		}
		if _, _, err := e.Pool(t.Context(), "ticket"); err == nil {
			t.Error("the tables are still there")
		}
	})
}
