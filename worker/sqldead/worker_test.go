package sqldead_test

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
	"github.com/firstcome/firstcome/worker/sqldead"
	"github.com/firstcome/firstcome/worker/sqlinbox"
	"github.com/firstcome/firstcome/worker/workertest"
)

var errBroken = errors.New("broken")

// rig is a worker on a database, and a broker that waits for its
// acknowledgements.
type rig struct {
	t     *testing.T
	from  string // the database's source
	d     database
	db    *sql.DB
	dead  *sqldead.Store
	inbox *sqlinbox.Inbox
	bus   *gochannel.GoChannel
	poll  time.Duration
}

func newRig(t *testing.T, d database) *rig {
	t.Helper()
	source, db := d.fresh(t)
	inbox, err := sqlinbox.New(db, d.name, nil)
	ok(t, err)
	return &rig{t: t, poll: 20 * time.Millisecond, from: source, d: d, db: db, dead: store(t, db, d, nil), inbox: inbox}
}

type (
	event   = worker.Event[workertest.Job]
	handler = func(w *worker.Worker) error
)

// start runs a worker and returns what ends it.
func (r *rig) start(dead worker.DeadLetter, inbox worker.Inbox, register handler) (stop func()) {
	r.t.Helper()
	r.bus = gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, nil)
	subscribed := &counting{Subscriber: r.bus, seen: make(chan struct{}, 1)}
	w, err := worker.New(subscribed, inbox, dead, &worker.Options{
		MaxAttempts: 2, Retry: func(int) time.Duration { return time.Millisecond }, LetterPoll: r.poll,
	})
	ok(r.t, err)
	ok(r.t, register(w))
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-subscribed.seen
	bus := r.bus
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		_ = bus.Close()
	})
	r.t.Cleanup(stop)
	return stop
}

type counting struct {
	message.Subscriber
	seen chan struct{}
}

func (c *counting) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	messages, err := c.Subscriber.Subscribe(ctx, topic)
	c.seen <- struct{}{}
	return messages, err
}

// handlers are the two ways to register: in the inbox's transaction, or not.
var handlers = map[string]func(r *rig, fn func(event) error) handler{
	"HandleTx": func(r *rig, fn func(event) error) handler {
		return func(w *worker.Worker) error {
			return worker.HandleTx(w, "h", "orders", func(ctx context.Context, tx *sql.Tx, e event) error {
				if _, err := tx.ExecContext(ctx, r.d.insert, e.ID); err != nil {
					return err
				}
				return fn(e)
			})
		}
	},
	"Handle": func(r *rig, fn func(event) error) handler {
		return func(w *worker.Worker) error {
			return worker.Handle(w, "h", "orders", func(ctx context.Context, e event) error {
				if err := fn(e); err != nil {
					return err
				}
				_, err := r.db.ExecContext(ctx, r.d.insert, e.ID)
				return err
			})
		}
	},
}

func eachWay(t *testing.T, test func(t *testing.T, r *rig, way func(r *rig, fn func(event) error) handler)) {
	each(t, func(t *testing.T, d database) {
		for name, way := range handlers {
			t.Run(name, func(t *testing.T) { test(t, newRig(t, d), way) })
		}
	})
}

func (r *rig) publish(n int) {
	r.t.Helper()
	ok(r.t, r.bus.Publish("orders", workertest.Event("orders", n)))
}

func (r *rig) letter(n int) worker.StoredLetter {
	r.t.Helper()
	l, err := r.dead.Find(r.t.Context(), "h", fmt.Sprintf("event-%d", n))
	ok(r.t, err)
	return l
}

// gone waits until the event has no letter.
func (r *rig) gone(n int) {
	r.t.Helper()
	r.wait(func() bool {
		buried, err := r.dead.Buried(r.t.Context(), "h", fmt.Sprintf("event-%d", n))
		ok(r.t, err)
		return !buried
	})
}

func (r *rig) wait(done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("it does not come")
		}
	}
}

func (r *rig) effects(n, want int) {
	r.t.Helper()
	if got := workertest.Effects(r.t, r.db)[fmt.Sprintf("event-%d", n)]; got != want {
		r.t.Errorf("%d effects, want %d", got, want)
	}
}

func TestRequeuedLetter_RunsOnceAsItWas_AndIsGone(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, way func(*rig, func(event) error) handler) {
		var mu sync.Mutex
		mended, seen := false, []event{}
		r.start(r.dead, r.inbox, way(r, func(e event) error {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, e)
			if !mended {
				return errBroken
			}
			return nil
		}))
		r.publish(1)
		l := r.letter(1)
		if l.State != worker.LetterDead || l.Attempts != 2 || l.Err != "broken" {
			t.Fatalf("got %+v", l)
		}
		r.publish(1) // a repeat while it lies
		r.effects(1, 0)
		mu.Lock()
		if len(seen) != 2 {
			t.Errorf("a repeat ran while the letter lies: %d attempts", len(seen))
		}
		mended = true
		mu.Unlock()
		ok(t, r.dead.Requeue(t.Context(), l.Seq))
		r.gone(1)
		r.effects(1, 1)
		r.publish(1) // a repeat after it is done
		r.effects(1, 1)
		mu.Lock()
		defer mu.Unlock()
		first, last := seen[0], seen[len(seen)-1]
		if len(seen) != 3 || last.ID != first.ID || last.Key != first.Key || last.Key == "" || last.Topic != first.Topic ||
			last.Payload != first.Payload || fmt.Sprint(last.Metadata) != fmt.Sprint(first.Metadata) || last.Origin != first.Origin {
			t.Errorf("ran %d times; first %+v, last %+v", len(seen), first, last)
		}
	})
}

func TestRequeuedLetterThatFailsAgain_LiesAgain(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, way func(*rig, func(event) error) handler) {
		text := make(chan string, 10)
		text <- "first"
		text <- "first"
		text <- "second"
		r.start(r.dead, r.inbox, way(r, func(event) error {
			if s := <-text; s != "second" {
				return errors.New(s)
			}
			return worker.Stop(errors.New("second"))
		}))
		r.publish(1)
		ok(t, r.dead.Requeue(t.Context(), r.letter(1).Seq))
		r.wait(func() bool { return r.letter(1).State == worker.LetterDead })
		if l := r.letter(1); l.Attempts != 3 || l.Err != "stop: second" || l.Class != worker.ClassStopped || l.Requeues != 1 {
			t.Errorf("got %+v", l)
		}
		r.effects(1, 0)
	})
}

func TestDroppedLetter_IsNotRevivedByARepeat(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, way func(*rig, func(event) error) handler) {
		fail := make(chan bool, 10)
		fail <- true
		fail <- true
		r.start(r.dead, r.inbox, way(r, func(event) error {
			select {
			case <-fail:
				return errBroken
			default:
				return nil
			}
		}))
		r.publish(1)
		ok(t, r.dead.Drop(t.Context(), r.letter(1).Seq))
		r.publish(1)
		r.effects(1, 0)
		r.publish(2)
		r.effects(2, 1)
	})
}

// The worker died after Put and before the acknowledgement: the next one is
// given the event again.
func TestEventThatWasBuriedAndNotAcknowledged_DoesNotRun(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, way func(*rig, func(event) error) handler) {
		ok(t, r.dead.Put(t.Context(), worker.Letter{Handler: "h", Topic: "orders", EventID: "event-1", Class: worker.ClassFailed, Attempts: 2}))
		r.start(r.dead, r.inbox, way(r, func(event) error { return nil }))
		r.publish(1)
		r.effects(1, 0)
		if l := r.letter(1); l.Attempts != 2 {
			t.Errorf("put twice: %+v", l)
		}
	})
}

func TestLetterOfAnEventThatIsMarked_IsRemovedWithoutARun(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, way func(*rig, func(event) error) handler) {
		ok(t, r.inbox.Mark(t.Context(), "h", "event-1"))
		ok(t, r.dead.Put(t.Context(), worker.Letter{Handler: "h", Topic: "orders", EventID: "event-1", Payload: []byte(`{}`)}))
		ok(t, r.dead.Requeue(t.Context(), r.letter(1).Seq))
		r.start(r.dead, r.inbox, way(r, func(event) error { return nil }))
		r.gone(1)
		r.effects(1, 0)
	})
}

// One of them has its letters on another pool than its inbox, so that it removes
// them after the mark.
func TestTwoWorkers_OneRunsTheRequeuedLetter(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, way func(*rig, func(event) error) handler) {
		const letters = 40
		for n := range letters {
			ok(t, r.dead.Put(t.Context(), worker.Letter{Handler: "h", Topic: "orders", EventID: fmt.Sprintf("event-%d", n), Payload: []byte(`{"n":1}`)}))
		}
		var mu sync.Mutex
		runs := map[string]int{}
		register := way(r, func(e event) error {
			mu.Lock()
			defer mu.Unlock()
			runs[e.ID]++
			return nil
		})
		r.start(r.dead, r.inbox, register)
		r.start(store(t, r.d.open(t, r.from), r.d, nil), r.inbox, register)
		for n := range letters {
			ok(t, r.dead.Requeue(t.Context(), r.letter(n).Seq))
		}
		for n := range letters {
			r.gone(n)
			r.effects(n, 1)
			mu.Lock()
			if id := fmt.Sprintf("event-%d", n); runs[id] != 1 {
				t.Errorf("%s ran %d times", id, runs[id])
			}
			mu.Unlock()
		}
	})
}

// failing is a store, or an inbox, whose removal does not succeed.
type failing struct {
	*sqldead.Store
	mu  sync.Mutex
	off bool
}

func (f *failing) fail() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil
	}
	return errBroken
}

func (f *failing) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
}

func (f *failing) RemoveTx(ctx context.Context, tx *sql.Tx, seq int64, taker string) (bool, error) {
	if err := f.fail(); err != nil {
		return false, err
	}
	return f.Store.RemoveTx(ctx, tx, seq, taker)
}

// The mark, the effect and the removal stand or fall together.
func TestRemovalThatFails_LeavesNeitherMarkNorEffect(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		r := newRig(t, d)
		ok(t, r.dead.Put(t.Context(), worker.Letter{Handler: "h", Topic: "orders", EventID: "event-1", Payload: []byte(`{}`)}))
		l := r.letter(1)
		f := &failing{Store: r.dead}
		r.start(f, r.inbox, handlers["HandleTx"](r, func(event) error { return nil }))
		ok(t, r.dead.Requeue(t.Context(), l.Seq))
		time.Sleep(100 * time.Millisecond) // some tries
		r.effects(1, 0)
		if seen, err := r.inbox.Seen(t.Context(), "h", "event-1"); err != nil || seen {
			t.Errorf("marked: %v, %v", seen, err)
		}
		if l := r.letter(1); l.State != worker.LetterRequeued || l.Attempts != 0 {
			t.Errorf("an outage ended the requeue: %+v", l)
		}
		f.heal()
		r.gone(1)
		r.effects(1, 1)
	})
}

// stolen takes the letter away between the worker's hand and its transaction,
// as when its lease has ended.
type stolen struct{ *sqldead.Store }

func (s stolen) Take(ctx context.Context, seq int64, taker string, lease time.Duration) (worker.StoredLetter, bool, error) {
	l, taken, err := s.Store.Take(ctx, seq, taker, lease)
	if taken && err == nil {
		err = errors.Join(s.Release(ctx, seq, taker), s.Drop(ctx, seq))
	}
	return l, taken, err
}

func TestLetterThatLeftTheHand_TakesNoEffect(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		r := newRig(t, d)
		ok(t, r.dead.Put(t.Context(), worker.Letter{Handler: "h", Topic: "orders", EventID: "event-1", Payload: []byte(`{}`)}))
		r.start(stolen{r.dead}, r.inbox, handlers["HandleTx"](r, func(event) error { return nil }))
		ok(t, r.dead.Requeue(t.Context(), r.letter(1).Seq))
		r.wait(func() bool { return r.letter(1).State == worker.LetterDropped })
		r.publish(2) // the worker goes on
		r.effects(1, 0)
		r.effects(2, 1)
	})
}

func TestRequeueInTheWorkersProcess_WaitsForNoPoll(t *testing.T) {
	r := newRig(t, databases[0])
	r.poll = time.Hour
	r.start(r.dead, r.inbox, handlers["HandleTx"](r, func(event) error { return nil }))
	for n := range 3 { // the first may be met by the look at the start
		ok(t, r.dead.Put(t.Context(), worker.Letter{Handler: "h", Topic: "orders", EventID: fmt.Sprintf("event-%d", n), Payload: []byte(`{}`)}))
		ok(t, r.dead.Requeue(t.Context(), r.letter(n).Seq))
		r.gone(n)
		r.effects(n, 1)
	}
}

func TestRequeuedLetter_WaitsBehindItsKeysEvents(t *testing.T) {
	r := newRig(t, databases[0])
	ok(t, r.dead.Put(t.Context(), worker.Letter{
		Handler: "h", Topic: "orders", EventID: "letter", Payload: []byte(`{}`), Key: "k", Metadata: map[string]string{worker.MetaKey: "k"},
	}))
	inside, goOn, letterRan := make(chan struct{}), make(chan struct{}), make(chan struct{})
	r.start(r.dead, r.inbox, handlers["Handle"](r, func(e event) error {
		if e.ID == "letter" {
			close(letterRan)
			return nil
		}
		close(inside)
		<-goOn
		return nil
	}))
	m := message.NewMessage("first", []byte(`{}`))
	m.Metadata.Set(worker.MetaKey, "k")
	published := make(chan error, 1)
	go func() { published <- r.bus.Publish("orders", m) }()
	<-inside
	l, err := r.dead.Find(t.Context(), "h", "letter")
	ok(t, err)
	ok(t, r.dead.Requeue(t.Context(), l.Seq))
	select {
	case <-letterRan:
		t.Error("the letter ran beside another event of its key")
	case <-time.After(200 * time.Millisecond):
	}
	close(goOn)
	<-letterRan
	ok(t, <-published)
}

func TestStoppedWorker_LetsGoOfItsLetter(t *testing.T) {
	r := newRig(t, databases[0])
	ok(t, r.dead.Put(t.Context(), worker.Letter{Handler: "h", Topic: "orders", EventID: "event-1", Payload: []byte(`{}`)}))
	running := make(chan struct{}, 10)
	stop := r.start(r.dead, r.inbox, handlers["Handle"](r, func(event) error {
		running <- struct{}{}
		return worker.Later(time.Hour)
	}))
	ok(t, r.dead.Requeue(t.Context(), r.letter(1).Seq))
	<-running
	if l := r.letter(1); !l.Running {
		t.Errorf("got %+v", l)
	}
	stop()
	if l := r.letter(1); l.Running || l.State != worker.LetterRequeued {
		t.Errorf("got %+v", l)
	}
}

func TestStoreThatForgetsBeforeTheBroker_IsRefused(t *testing.T) {
	_, db := databases[0].fresh(t)
	forgetful := store(t, db, databases[0], &sqldead.Options{Retention: time.Hour})
	if _, err := worker.New(gochannel.NewGoChannel(gochannel.Config{}, nil), nil, forgetful, nil); err == nil {
		t.Error("taken")
	}
}
