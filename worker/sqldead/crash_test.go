package sqldead_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqldead"
	"github.com/firstcome/firstcome/worker/sqlinbox"
	"github.com/firstcome/firstcome/worker/workertest"
)

// The points at which a worker process is killed while it runs a letter.
const (
	inHandler   = "in the handler, its statements written and not committed"
	afterCommit = "after the commit of mark, effect and removal"
	afterEffect = "after an effect of its own, before the mark"
	afterMark   = "after the mark, before the removal"
)

// The letter is then requeued or done; the next worker leaves one effect.
func TestKilledWhileALetterRuns_ItIsRequeuedOrDone(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		for _, c := range []struct {
			point, way string
			done       bool // by the one that was killed
		}{
			{inHandler, "HandleTx", false}, {afterCommit, "HandleTx", true}, {afterEffect, "Handle", false}, {afterMark, "Handle", false},
		} {
			t.Run(c.way+"_"+c.point, func(t *testing.T) {
				r := newRig(t, d)
				ok(t, r.dead.Put(t.Context(), worker.Letter{Handler: "h", Topic: "orders", EventID: "event-1", Payload: []byte(`{}`)}))
				ok(t, r.dead.Requeue(t.Context(), r.letter(1).Seq))
				child := func(point string) *testenv.Process {
					return testenv.Start(t, testenv.Command(t, "worker", "DRIVER="+d.driver, "SOURCE="+r.from, "DIALECT="+d.name,
						"INSERT="+d.insert, "WAY="+c.way, "POINT="+point))
				}
				first := child(c.point)
				first.WaitLine("reached")
				first.Kill()
				if buried, err := r.dead.Buried(t.Context(), "h", "event-1"); err != nil || buried == c.done {
					t.Fatalf("buried %v, %v; want %v", buried, err, !c.done)
				}
				if !c.done {
					if l := r.letter(1); l.State != worker.LetterRequeued {
						t.Fatalf("got %+v", l)
					}
					// The dead one's lease ends.
					_, err := r.db.ExecContext(t.Context(), `UPDATE firstcome_dead_letter SET taken_until = 0`)
					ok(t, err)
				}
				child("")
				r.gone(1)
				if c.point == afterEffect { // which a handler makes idempotent by the event's ID
					r.effects(1, 2)
				} else {
					r.effects(1, 1)
				}
				if seen, err := r.inbox.Seen(t.Context(), "h", "event-1"); err != nil || !seen {
					t.Errorf("marked: %v, %v", seen, err)
				}
			})
		}
	})
}

// crash waits at its point to be killed.
func crash(point string) {
	if os.Getenv("POINT") == point {
		fmt.Println("reached")
		select {}
	}
}

type crashingInbox struct{ *sqlinbox.Inbox }

func (i crashingInbox) InTx(ctx context.Context, handler, event string, work func(tx *sql.Tx) error) (bool, error) {
	ran, err := i.Inbox.InTx(ctx, handler, event, work)
	if err == nil {
		crash(afterCommit)
	}
	return ran, err
}

// crashingStore has its letters removed after the mark, as with two databases.
type crashingStore struct{ worker.LetterStore }

func (s crashingStore) Remove(ctx context.Context, seq int64, taker string) (bool, error) {
	crash(afterMark)
	return s.LetterStore.Remove(ctx, seq, taker)
}

// workerProcess is the child: a worker with nothing to do but letters.
func workerProcess() error {
	db, err := sql.Open(os.Getenv("DRIVER"), os.Getenv("SOURCE"))
	if err != nil {
		return err
	}
	inbox, err := sqlinbox.New(db, os.Getenv("DIALECT"), nil)
	if err != nil {
		return err
	}
	dead, err := sqldead.New(db, os.Getenv("DIALECT"), nil)
	if err != nil {
		return err
	}
	var letters worker.LetterStore = dead
	if os.Getenv("POINT") == afterMark {
		letters = crashingStore{dead}
	}
	w, err := worker.New(gochannel.NewGoChannel(gochannel.Config{}, nil), crashingInbox{inbox}, letters,
		&worker.Options{LetterPoll: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	if os.Getenv("WAY") == "HandleTx" {
		err = worker.HandleTx(w, "h", "orders", func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
			_, err := tx.ExecContext(ctx, os.Getenv("INSERT"), e.ID)
			crash(inHandler)
			return err
		})
	} else {
		err = worker.Handle(w, "h", "orders", func(ctx context.Context, e worker.Event[workertest.Job]) error {
			_, err := db.ExecContext(ctx, os.Getenv("INSERT"), e.ID)
			crash(afterEffect)
			return err
		})
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return w.Run(ctx)
}

// The database dies while a letter runs. It stays requeued, counts no attempt,
// and goes on by itself.
func TestDatabaseKilledWhileALetterRuns_ItRunsOnceAfterwards(t *testing.T) {
	server := testenv.NewPostgres(t)
	d := databases[1]
	d.source = func(t *testing.T) string { return server.NewDatabase(t) }
	for name, way := range handlers {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, d)
			ok(t, r.dead.Put(t.Context(), worker.Letter{Handler: "h", Topic: "orders", EventID: "event-1", Payload: []byte(`{}`)}))
			killed := make(chan struct{})
			first := true
			r.start(r.dead, r.inbox, way(r, func(event) error {
				if first {
					first = false
					server.Kill()
					close(killed)
				}
				return nil
			}))
			ok(t, r.dead.Requeue(t.Context(), r.letter(1).Seq))
			<-killed
			time.Sleep(300 * time.Millisecond) // some tries against nothing
			server.Restart()
			r.wait(func() bool {
				buried, err := r.dead.Buried(t.Context(), "h", "event-1")
				if err == nil && buried {
					l, err := r.dead.Find(t.Context(), "h", "event-1")
					if err == nil && l.State != worker.LetterRequeued {
						t.Fatalf("it was given up: %+v", l)
					}
				}
				return err == nil && !buried
			})
			r.effects(1, 1)
			if seen, err := r.inbox.Seen(t.Context(), "h", "event-1"); err != nil || !seen {
				t.Errorf("marked: %v, %v", seen, err)
			}
		})
	}
}
