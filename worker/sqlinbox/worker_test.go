package sqlinbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqlinbox"
	"github.com/firstcome/firstcome/worker/workertest"
)

// letters is a dead letter store in memory.
type letters chan worker.Letter

func (l letters) Put(_ context.Context, letter worker.Letter) error {
	l <- letter
	return nil
}

// handlerTx is what the tests register.
type handlerTx = func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error

// fleet runs so many workers on one database, each of which is given every
// message, and returns a function that publishes and waits until all of them
// have acknowledged.
func fleet(t *testing.T, d database, db *sql.DB, workers int, opts *worker.Options, dead letters, fn handlerTx) (publish func(...*message.Message)) {
	t.Helper()
	bus := gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, nil)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
		ok(t, bus.Close())
	})
	subscribed := &counting{Subscriber: bus, seen: make(chan struct{}, workers)}
	for range workers {
		inbox, err := sqlinbox.New(db, d.name, nil)
		ok(t, err)
		w, err := worker.New(subscribed, inbox, dead, opts)
		ok(t, err)
		ok(t, worker.HandleTx(w, "h", "orders", fn))
		running.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	for range workers {
		<-subscribed.seen
	}
	return func(msgs ...*message.Message) {
		t.Helper()
		ok(t, bus.Publish("orders", msgs...))
	}
}

// counting tells when a subscription stands.
type counting struct {
	message.Subscriber
	seen chan struct{}
}

func (c *counting) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	messages, err := c.Subscriber.Subscribe(ctx, topic)
	c.seen <- struct{}{}
	return messages, err
}

func (d database) effect(ctx context.Context, tx *sql.Tx, id string) error {
	_, err := tx.ExecContext(ctx, d.insert, id)
	return err
}

func TestTwoWorkersGivenTheSameEventAtOnce_OneEffect(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		db := d.fresh(t)
		publish := fleet(t, d, db, 2, nil, nil, func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
			return d.effect(ctx, tx, e.ID)
		})
		for n := range 50 {
			publish(workertest.Event("orders", n), workertest.Event("orders", n)) // and twice to each
		}
		counts := workertest.Effects(t, db)
		for n := range 50 {
			if id := fmt.Sprintf("event-%d", n); counts[id] != 1 {
				t.Errorf("%s has %d effects", id, counts[id])
			}
		}
		inbox, err := sqlinbox.New(db, d.name, nil)
		ok(t, err)
		if n := count(t, inbox); n != 50 {
			t.Errorf("Count: %d, want 50", n)
		}
	})
}

// A handler writes and then fails, in each way there is; what it wrote is gone,
// and the attempt that succeeds leaves one effect.
func TestFailedAttempts_LeaveNothing(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		db := d.fresh(t)
		opts := &worker.Options{Retry: func(int) time.Duration { return time.Millisecond }, Timeout: time.Second}
		publish := fleet(t, d, db, 1, opts, nil, func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
			if err := d.effect(ctx, tx, e.ID); err != nil {
				return err
			}
			switch e.Attempt {
			case 1:
				return errors.New("failed")
			case 2:
				panic("oh")
			case 3:
				<-ctx.Done() // and then claims success
				return nil
			case 4:
				_ = tx.Rollback()
				return nil
			default:
				return nil
			}
		})
		publish(workertest.Event("orders", 1))
		if n := workertest.Effects(t, db)["event-1"]; n != 1 {
			t.Errorf("%d effects, want 1", n)
		}
	})
}

func TestDeadLetter_LeavesNoMark_SoThatItMayBeRequeued(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		db := d.fresh(t)
		dead := make(letters, 1)
		mended := false
		publish := fleet(t, d, db, 1, nil, dead, func(ctx context.Context, tx *sql.Tx, e worker.Event[workertest.Job]) error {
			if !mended {
				return worker.Stop(errors.New("broken"))
			}
			return d.effect(ctx, tx, e.ID)
		})
		publish(workertest.Event("orders", 1))
		if l := <-dead; l.EventID != "event-1" {
			t.Errorf("dead letter %+v", l)
		}
		mended = true
		publish(workertest.Event("orders", 1))
		if n := workertest.Effects(t, db)["event-1"]; n != 1 {
			t.Errorf("%d effects, want 1", n)
		}
	})
}
