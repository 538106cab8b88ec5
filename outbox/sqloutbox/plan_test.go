package sqloutbox

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox"
)

// TestPostgres_PlansStandOnTheIndexEvenForAnEmptyTable: what is prepared while
// the queue is empty serves when it has millions of rows.
func TestPostgres_PlansStandOnTheIndexEvenForAnEmptyTable(t *testing.T) {
	db := testenv.Postgres(t).DB(t)
	files, err := Migrations("postgres")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := New(db, "postgres", nil)
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.readLateral([]outbox.Window{{Lane: 1, Until: math.MaxInt64, Limit: 10}, {Lane: 2, Until: math.MaxInt64, Limit: 10}})
	if err != nil {
		t.Fatal(err)
	}
	for _, rows := range []int{0, 2000} {
		if rows > 0 {
			insert(t, s, rows)
		}
		if _, err := db.Exec("ANALYZE firstcome_outbox"); err != nil {
			t.Fatal(err)
		}
		plan := explain(t, s, q)
		if strings.Contains(plan, "Seq Scan on firstcome_outbox ") || !strings.Contains(plan, "firstcome_outbox_pkey") {
			t.Errorf("with %d rows:\n%s", rows, plan)
		}
	}
}

func insert(t *testing.T, s *Store, n int) {
	t.Helper()
	var msgs []outbox.Message
	for i := range n {
		msgs = append(msgs, outbox.Message{ID: fmt.Sprint(i), Topic: "orders", Key: fmt.Sprint(i % 100)})
	}
	if err := s.Add(t.Context(), s.db, msgs...); err != nil {
		t.Fatal(err)
	}
}

func explain(t *testing.T, s *Store, q query) string {
	t.Helper()
	var plan strings.Builder
	err := s.inTx(context.Background(), true, func(tx *sql.Tx) error {
		return s.query(context.Background(), tx, func(rows *sql.Rows) error {
			var line string
			err := rows.Scan(&line)
			plan.WriteString(line + "\n")
			return err
		}, "EXPLAIN "+q.text, q.args...)
	})
	if err != nil {
		t.Fatal(err)
	}
	return plan.String()
}
