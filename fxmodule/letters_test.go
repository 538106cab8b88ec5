package fxmodule_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
	"github.com/firstcome/firstcome/worker"
)

func TestADeadLetterIsRequeuedThroughTheModules(t *testing.T) {
	channel := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{})
	failed, handled := make(chan struct{}, 1), make(chan string, 1)
	var letters worker.LetterStore
	app := fxtest.New(t,
		fx.NopLogger,
		fx.Supply(database(t)),
		fx.Provide(func() message.Subscriber { return channel }),
		fxmodule.Inbox(nil),
		fxmodule.DeadLetters(nil),
		fxmodule.Worker(nil),
		fx.Invoke(func(w *worker.Worker) error {
			return worker.Handle(w, "test", "orders", func(_ context.Context, e worker.Event[string]) error {
				select {
				case failed <- struct{}{}:
					return worker.Stop(errors.New("broken"))
				default:
					handled <- e.Payload
					return nil
				}
			})
		}),
		fx.Populate(&letters),
	)
	app.RequireStart()
	if err := channel.Publish("orders", message.NewMessage("1", []byte(`"hello"`))); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l, err := letters.Find(t.Context(), "test", "1")
		if err == nil {
			if err := letters.Requeue(t.Context(), l.Seq); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	select {
	case got := <-handled:
		if got != "hello" {
			t.Errorf("handled %q", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was handled")
	}
	app.RequireStop()
}

func TestParkedMessagesAreDeadLetters(t *testing.T) {
	db := database(t)
	store, err := sqloutbox.New(db.DB, "sqlite", nil)
	if err != nil {
		t.Fatal(err)
	}
	for seq, held := range []bool{false, true, false} {
		_, err := db.DB.ExecContext(t.Context(), `INSERT INTO firstcome_outbox_parked
			(lane, seq, format, topic, msg_key, id, headers, payload, written_at, held, attempts, reason, parked_at)
			VALUES (1, ?, 1, 'orders', ?, ?, '{}', 'secret', 0, ?, 3, 'refused', CAST(unixepoch('subsec') * 1000 AS INTEGER) - 5000)`,
			seq+1, string(rune('a'+seq/2)), string(rune('x'+seq)), held)
		if err != nil {
			t.Fatal(err)
		}
	}
	letters := fxmodule.ParkedLetters(store)
	ctx := t.Context()
	page, err := letters.Letters(ctx, worker.LetterQuery{})
	if err != nil || len(page) != 3 || page[0].EventID != "x" || page[0].Class != fxmodule.ClassParked || page[1].Class != fxmodule.ClassHeld ||
		page[0].Err != "refused" || page[0].Attempts != 3 || page[0].Payload != nil || page[0].Size != 6 || page[0].Age < 5*time.Second {
		t.Fatalf("got %+v, %v", page, err)
	}
	if held, err := letters.Letters(ctx, worker.LetterQuery{Class: fxmodule.ClassHeld, Limit: 1}); err != nil || len(held) != 1 || held[0].Seq != 2 {
		t.Errorf("got %+v, %v", held, err)
	}
	if l, err := letters.Letter(ctx, 3); err != nil || string(l.Payload) != "secret" || l.Key != "b" {
		t.Errorf("got %+v, %v", l, err)
	}
	stats, err := letters.LetterStats(ctx)
	if err != nil || len(stats) != 2 || stats[0].Count != 2 || stats[1].Count != 1 || stats[0].Oldest < 5*time.Second {
		t.Errorf("got %+v, %v", stats, err)
	}
	for _, c := range []struct {
		err, want error
	}{
		{letters.Requeue(ctx, 9), worker.ErrNoLetter},
		{letters.Requeue(ctx, 2), worker.ErrNotRequeueable},
		{letters.Drop(ctx, 9), worker.ErrNoLetter},
		{letters.Requeue(ctx, 1), nil}, // and the one behind it
		{letters.Requeue(ctx, 2), worker.ErrNoLetter},
		{letters.Drop(ctx, 3), nil},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("got %v, want %v", c.err, c.want)
		}
	}
	if s, err := store.Stats(ctx); err != nil || s.Pending != 2 || s.Parked+s.Held != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
}
