package sqloutbox_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

func TestPostgres_TransactionsThatLockTheirAggregateKeepItsOrder(t *testing.T) {
	db := testenv.Postgres(t).DB(t)
	store := newStore(t, db, "postgres")
	_, err := db.Exec("CREATE TABLE account (id text PRIMARY KEY, v int); INSERT INTO account VALUES ('K', 0), ('other', 0)")
	ok(t, err)
	begin := func() *sql.Tx {
		x, err := db.BeginTx(context.Background(), nil)
		ok(t, err)
		return x
	}
	do := func(x *sql.Tx, query string) {
		_, err := x.Exec(query)
		ok(t, err)
	}
	// The second to emit has the lower transaction number: it wrote first.
	second := begin()
	do(second, "UPDATE account SET v = 1 WHERE id = 'other'")
	first := begin()
	do(first, "UPDATE account SET v = 1 WHERE id = 'K'")
	ok(t, store.Add(t.Context(), first, outboxtest.Msg("K", 0)))
	ok(t, first.Commit())
	do(second, "UPDATE account SET v = 2 WHERE id = 'K'")
	ok(t, store.Add(t.Context(), second, outboxtest.Msg("K", 1)))
	ok(t, second.Commit())

	rec := outboxtest.NewRecorder(nil)
	startRelay(t, store, rec)
	outboxtest.InOrder(t, rec.Wait(t, outboxtest.AtLeast(2)))
}

func TestPostgres_NoTransactionOrLockIsHeldWhilePublishing(t *testing.T) {
	db := testenv.Postgres(t).DB(t)
	store := newStore(t, db, "postgres")
	release, entered := make(chan struct{}), make(chan struct{})
	rec := outboxtest.NewRecorder(func(string, *message.Message) error {
		entered <- struct{}{}
		<-release
		return nil
	})
	startRelay(t, store, rec)
	x, err := db.Begin()
	ok(t, err)
	ok(t, store.Add(t.Context(), x, outboxtest.Msg("k", 0)))
	ok(t, x.Commit())
	<-entered
	defer close(release)
	// Polls and heartbeats go on meanwhile and are short; what matters is that
	// none lasts. Each look counts transactions older than it should ever see.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 30 {
		<-tick.C
		var old int
		ok(t, db.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
			AND xact_start < clock_timestamp() - interval '2 s'`).Scan(&old))
		if old > 0 {
			t.Fatalf("%d transactions are open while a message is being published", old)
		}
	}
}

func TestPostgres_TheRelayLeavesTheApplicationsPoolToIt(t *testing.T) {
	db := testenv.Postgres(t).DB(t)
	store := newStore(t, db, "postgres")
	db.SetMaxOpenConns(10)
	for range 8 { // the application at work
		conn, err := db.Conn(t.Context())
		ok(t, err)
		defer func() { _ = conn.Close() }()
	}
	rec := outboxtest.NewRecorder(nil)
	startRelay(t, store, rec)
	for i := range 200 {
		x, err := db.Begin()
		ok(t, err)
		ok(t, store.Add(t.Context(), x, outboxtest.Msg("k", i)))
		ok(t, x.Commit())
	}
	outboxtest.InOrder(t, rec.Wait(t, outboxtest.AtLeast(200)))
}

func TestPostgres_AnUnknownFormatIsParkedAndTheRestFlows(t *testing.T) {
	db := testenv.Postgres(t).DB(t)
	store := newStore(t, db, "postgres")
	x, err := db.Begin()
	ok(t, err)
	ok(t, store.Add(t.Context(), x, outboxtest.Msg("new", 0)))
	ok(t, x.Commit())
	_, err = db.Exec("UPDATE firstcome_outbox SET format = 99")
	ok(t, err)
	x, err = db.Begin()
	ok(t, err)
	ok(t, store.Add(t.Context(), x, outboxtest.Msg("k", 0)))
	ok(t, x.Commit())
	rec := outboxtest.NewRecorder(nil)
	relayWith(t, store, rec, 2)
	rec.Wait(t, outboxtest.AtLeast(1))
	until(t, "parked", func() bool {
		parked, err := store.Parked(t.Context(), 0, 0)
		return err == nil && len(parked) == 1 && strings.Contains(parked[0].Reason, "format 99")
	})
	if got := rec.IDs(""); len(got) != 1 || got[0] != "k/0" {
		t.Fatal(got)
	}
}
