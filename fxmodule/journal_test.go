package fxmodule_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/redis/go-redis/v9"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox/journal"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/worker"
)

func TestAReservationReachesAHandlerThroughTheJournalModule(t *testing.T) {
	client := testenv.Mini(t)
	channel := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{})
	handled := make(chan journal.Event, 1)
	var parts struct {
		fx.In

		Stock   stock.Store
		Journal *journal.Relay
	}
	app := fxtest.New(t,
		fx.NopLogger,
		fx.Supply(database(t)),
		fx.Provide(
			func() redis.UniversalClient { return client },
			func() (message.Publisher, message.Subscriber) { return channel, channel },
			worker.DeadLetterTo,
		),
		fxmodule.Stock(redisstock.JournalRelayed(0), nil),
		fx.Supply(journal.These("ticket")),
		fxmodule.Journal("stock-events", nil),
		fxmodule.Inbox(nil),
		fxmodule.Worker(nil),
		fx.Invoke(func(w *worker.Worker) error {
			return worker.Handle(w, "test", "stock-events", func(_ context.Context, e worker.Event[journal.Event]) error {
				handled <- e.Payload
				return nil
			})
		}),
		fx.Populate(&parts),
	)
	if err := app.Err(); err != nil {
		t.Fatal(err)
	}
	app.RequireStart()
	if _, err := parts.Stock.Open(t.Context(), stock.Pool{SKU: "ticket", Total: 1}); err != nil {
		t.Fatal(err)
	}
	id := stock.NewID("ticket", "ann", [16]byte{1})
	if _, err := parts.Stock.Reserve(t.Context(), stock.Request{ID: id, SKU: "ticket", Buyer: "ann", Quantity: 1}); err != nil {
		t.Fatal(err)
	}
	parts.Journal.Notify("ticket")
	select {
	case e := <-handled:
		if e.Kind != "reserved" || e.ID != id.String() || e.SKU != "ticket" || e.Quantity != 1 || e.Seq != 1 {
			t.Errorf("handled %+v", e)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was handled")
	}
	app.RequireStop()
}

// leasingStock is a stock's journal with leases.
type leasingStock struct{ stock.JournalReader }

var errLeases = errors.New("asked for a lease")

func (leasingStock) LeaseJournal(context.Context, string, string, time.Duration) (bool, error) {
	return false, errLeases
}

func TestJournalReader_HasLeasesWhereTheStockHas(t *testing.T) {
	if _, leases := fxmodule.JournalReader(struct{ stock.JournalReader }{}).(journal.Leaser); leases {
		t.Error("leases come from nowhere")
	}
	leaser, leases := fxmodule.JournalReader(leasingStock{}).(journal.Leaser)
	if !leases {
		t.Fatal("the stock's leases are lost")
	}
	if _, err := leaser.LeaseJournal(t.Context(), "p", "r", time.Second); !errors.Is(err, errLeases) {
		t.Error(err)
	}
}
