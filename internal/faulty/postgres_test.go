package faulty_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
)

// postgresBundle is a table on a real PostgreSQL, seen through a faulty dialer.
type postgresBundle struct {
	dialer *faulty.Dialer
	conn   *pgx.Conn // through the dialer
	truth  *pgx.Conn // past it
}

func newPostgresBundle(t *testing.T) *postgresBundle {
	t.Helper()
	url := testenv.Postgres(t).NewDatabase(t)
	dialer := faulty.NewDialer()
	b := &postgresBundle{dialer: dialer, conn: connect(t, url, dialer.DialContext), truth: connect(t, url, nil)}
	if _, err := b.truth.Exec(t.Context(), "CREATE TABLE orders (id text PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	return b
}

func connect(t *testing.T, url string, dial func(context.Context, string, string) (net.Conn, error)) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if dial != nil {
		config.DialFunc = dial
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// order inserts one in a transaction of its own and returns what COMMIT said
// within ctx.
func (b *postgresBundle) order(ctx context.Context, t *testing.T) error {
	t.Helper()
	tx, err := b.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO orders VALUES ('a')"); err != nil {
		t.Fatal(err)
	}
	return tx.Commit(ctx)
}

// brief is a context for a reply that does not come.
func brief(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func (b *postgresBundle) orders(t *testing.T) (n int) {
	t.Helper()
	if err := b.truth.QueryRow(t.Context(), "SELECT count(*) FROM orders").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCutReply_OfCOMMITLeavesTheRow(t *testing.T) {
	t.Parallel()
	b := newPostgresBundle(t)
	fault := b.dialer.CutReply(1, faulty.Contains("commit"))
	if err := b.order(t.Context(), t); err == nil {
		t.Error("COMMIT reported success")
	}
	fault.MustFire(t)
	if n := b.orders(t); n != 1 {
		t.Errorf("%d rows, want 1: the server had committed", n)
	}
}

func TestCutRequest_OfCOMMITLeavesNoRow(t *testing.T) {
	t.Parallel()
	b := newPostgresBundle(t)
	fault := b.dialer.CutRequest(1, faulty.Contains("commit"))
	if err := b.order(t.Context(), t); err == nil {
		t.Error("COMMIT reported success")
	}
	fault.MustFire(t)
	if n := b.orders(t); n != 0 {
		t.Errorf("%d rows, want none: the server never heard of the commit", n)
	}
}

func TestDropReply_PgxGivesUpAtItsContext(t *testing.T) {
	t.Parallel()
	b := newPostgresBundle(t)
	b.dialer.DropReply(1, faulty.Contains("commit"))
	if err := b.order(brief(t), t); err == nil {
		t.Error("COMMIT reported success")
	}
	if n := b.orders(t); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

func TestDelayReply_PgxGivesUpAtItsContext(t *testing.T) {
	t.Parallel()
	b := newPostgresBundle(t)
	b.dialer.DelayReply(1, time.Minute, faulty.Contains("commit"))
	begin := time.Now()
	if err := b.order(brief(t), t); err == nil {
		t.Error("COMMIT reported success")
	}
	if waited := time.Since(begin); waited > 30*time.Second {
		t.Errorf("gave up after %s", waited)
	}
}
