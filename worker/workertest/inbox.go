package workertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firstcome/firstcome/worker"
)

// InboxParts is what the suite needs of one fresh inbox.
type InboxParts struct {
	Inbox worker.TxInbox
	// DB is the inbox's database, with a table effects (event_id text or
	// varchar, no unique index) that handlers write to.
	DB *sql.DB
	// Insert is INSERT INTO effects (event_id) VALUES (…) with the database's
	// own placeholder.
	Insert string
}

// Inbox runs the suite. parts is called once per test.
func Inbox(t *testing.T, parts func(t *testing.T) InboxParts) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p InboxParts)
	}{
		{"UnmarkedEvent_IsNotSeen", unmarked},
		{"MarkedEvent_IsSeen_ByItsHandlerOnly", marked},
		{"MarkTwice_IsNoError", markTwice},
		{"InTx_MarkAndEffect_StandTogether", inTx},
		{"InTx_FailedWork_LeavesNeither", inTxFails},
		{"InTx_WorkThatPanics_LeavesNeither", inTxPanics},
		{"InTx_ContextThatEnds_LeavesNeither", inTxCancelled},
		{"InTx_SecondOfTwo_WaitsAndFindsItDone", secondWaits},
		{"InTx_SecondOfTwo_RunsWhenTheFirstRollsBack", secondRuns},
		{"InTx_ManyAtOnce_OneEffectPerEvent", manyAtOnce},
		{"OddIDs_AreHeldApart", oddIDs},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, parts(t)) })
	}
}

func unmarked(t *testing.T, p InboxParts) {
	if seen, err := p.Inbox.Seen(t.Context(), "h", "1"); err != nil || seen {
		t.Fatalf("Seen: %v, %v; want false", seen, err)
	}
}

func marked(t *testing.T, p InboxParts) {
	ok(t, p.Inbox.Mark(t.Context(), "h", "1"))
	for _, c := range []struct {
		handler, id string
		want        bool
	}{{"h", "1", true}, {"other", "1", false}, {"h", "2", false}, {"H", "1", false}} {
		if seen, err := p.Inbox.Seen(t.Context(), c.handler, c.id); err != nil || seen != c.want {
			t.Errorf("Seen(%s, %s): %v, %v; want %v", c.handler, c.id, seen, err, c.want)
		}
	}
}

func markTwice(t *testing.T, p InboxParts) {
	ok(t, p.Inbox.Mark(t.Context(), "h", "1"))
	ok(t, p.Inbox.Mark(t.Context(), "h", "1"))
}

func inTx(t *testing.T, p InboxParts) {
	for i, want := range []bool{true, false, false} {
		ran, err := p.Inbox.InTx(t.Context(), "h", "1", p.effect(t.Context(), "1"))
		if err != nil || ran != want {
			t.Fatalf("call %d: ran %v, %v; want %v", i+1, ran, err, want)
		}
	}
	p.want(t, "1", 1)
	if seen, err := p.Inbox.Seen(t.Context(), "h", "1"); err != nil || !seen {
		t.Fatalf("Seen: %v, %v; want true", seen, err)
	}
	ok(t, p.Inbox.Mark(t.Context(), "h", "2"))
	if ran, err := p.Inbox.InTx(t.Context(), "h", "2", p.effect(t.Context(), "2")); err != nil || ran {
		t.Fatalf("after Mark: ran %v, %v; want false", ran, err)
	}
}

var errWork = errors.New("work failed")

func inTxFails(t *testing.T, p InboxParts) {
	_, err := p.Inbox.InTx(t.Context(), "h", "1", func(tx *sql.Tx) error {
		ok(t, p.effect(t.Context(), "1")(tx))
		return errWork
	})
	if !errors.Is(err, errWork) {
		t.Fatalf("got %v, want the error of work", err)
	}
	p.nothing(t)
}

func inTxPanics(t *testing.T, p InboxParts) {
	func() {
		defer func() { _ = recover() }()
		_, _ = p.Inbox.InTx(t.Context(), "h", "1", func(tx *sql.Tx) error {
			ok(t, p.effect(t.Context(), "1")(tx))
			panic("oh")
		})
	}()
	p.nothing(t)
}

func inTxCancelled(t *testing.T, p InboxParts) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := p.Inbox.InTx(ctx, "h", "1", func(tx *sql.Tx) error {
		ok(t, p.effect(ctx, "1")(tx))
		cancel()
		return nil
	})
	if err == nil {
		t.Fatal("committed though the context had ended")
	}
	p.nothing(t)
}

func secondWaits(t *testing.T, p InboxParts) {
	ran, err := p.secondOfTwo(t, nil)
	if err != nil || ran {
		t.Fatalf("the second: ran %v, %v; want not", ran, err)
	}
	p.want(t, "1", 1)
}

func secondRuns(t *testing.T, p InboxParts) {
	ran, err := p.secondOfTwo(t, errWork)
	if err != nil || !ran {
		t.Fatalf("the second: ran %v, %v; want true", ran, err)
	}
	p.want(t, "1", 1)
}

// secondOfTwo begins a second transaction with the same event while the first
// is in its work, and ends the first with firstErr.
func (p InboxParts) secondOfTwo(t *testing.T, firstErr error) (ran bool, err error) {
	t.Helper()
	inside, goOn, firstDone := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := p.Inbox.InTx(t.Context(), "h", "1", func(tx *sql.Tx) error {
			if err := p.effect(t.Context(), "1")(tx); err != nil {
				return err
			}
			close(inside)
			<-goOn
			return firstErr
		})
		firstDone <- err
	}()
	select {
	case <-inside:
	case err := <-firstDone:
		t.Fatalf("the first never got to its work: %v", err)
	}
	type answer struct {
		ran bool
		err error
	}
	second := make(chan answer, 1)
	go func() {
		ran, err := p.Inbox.InTx(t.Context(), "h", "1", p.effect(t.Context(), "1"))
		second <- answer{ran, err}
	}()
	select {
	case a := <-second:
		t.Fatalf("the second did not wait: %+v", a)
	case <-time.After(200 * time.Millisecond): // real databases: nothing tells that it waits
	}
	close(goOn)
	if err := <-firstDone; !errors.Is(err, firstErr) {
		t.Fatalf("the first: %v, want %v", err, firstErr)
	}
	a := <-second
	return a.ran, a.err
}

func manyAtOnce(t *testing.T, p InboxParts) {
	const events, workers = 40, 8
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for n := range events {
				id := fmt.Sprint((n*7 + w*3) % events)
				for try := 1; ; try++ { // as the worker does
					_, err := p.Inbox.InTx(t.Context(), "h", id, func(tx *sql.Tx) error {
						if err := p.effect(t.Context(), id)(tx); err != nil {
							return err
						}
						if (n+w+try)%5 == 0 {
							return errWork
						}
						return nil
					})
					if err == nil {
						break
					}
					if try > 50 {
						t.Errorf("event %s: %v", id, err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	for n := range events {
		p.want(t, fmt.Sprint(n), 1)
	}
}

func oddIDs(t *testing.T, p InboxParts) {
	long := strings.Repeat("x", 10_000)
	ids := []string{
		"a", "A", "a ", " a", "ä", "a\u0308", "a\x00", "a\xff", long, long + "y", "sha256:a", "sha256:A", "'; --", "%", "\\", strings.Repeat("é", 150),
	}
	for i, id := range ids {
		if seen, err := p.Inbox.Seen(t.Context(), "h", id); err != nil || seen {
			t.Fatalf("ID %d is seen before it is marked: %v, %v", i, seen, err)
		}
		ok(t, p.Inbox.Mark(t.Context(), "h", id))
		if seen, err := p.Inbox.Seen(t.Context(), "h", id); err != nil || !seen {
			t.Fatalf("ID %d is not seen once marked: %v, %v", i, seen, err)
		}
	}
}

// effect is a handler's work: one row.
func (p InboxParts) effect(ctx context.Context, id string) func(tx *sql.Tx) error {
	return func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, p.Insert, id)
		return err
	}
}

// want checks the effects of one event.
func (p InboxParts) want(t *testing.T, id string, want int) {
	t.Helper()
	if n := Effects(t, p.DB)[id]; n != want {
		t.Errorf("event %s has %d effects, want %d", id, n, want)
	}
}

// nothing checks that a rolled back event left no trace and may run.
func (p InboxParts) nothing(t *testing.T) {
	t.Helper()
	p.want(t, "1", 0)
	if seen, err := p.Inbox.Seen(t.Context(), "h", "1"); err != nil || seen {
		t.Fatalf("Seen: %v, %v; want false", seen, err)
	}
	if ran, err := p.Inbox.InTx(t.Context(), "h", "1", p.effect(t.Context(), "1")); err != nil || !ran {
		t.Fatalf("the next: ran %v, %v; want true", ran, err)
	}
	p.want(t, "1", 1)
}

// Effects counts the rows of the table effects by event.
func Effects(t *testing.T, db *sql.DB) map[string]int {
	t.Helper()
	rows, err := db.QueryContext(context.WithoutCancel(t.Context()), `SELECT event_id, COUNT(*) FROM effects GROUP BY event_id`)
	ok(t, err)
	defer func() { _ = rows.Close() }()
	counts := map[string]int{}
	for rows.Next() {
		var id string
		var n int
		ok(t, rows.Scan(&id, &n))
		counts[id] = n
	}
	ok(t, rows.Err())
	return counts
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
