package worker_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqlinbox"
)

// An event that is delivered twice confirms its order once. The broker is
// Watermill's, in memory, and the database SQLite: stand-ins that need no server.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	db, err := openShop(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = db.Close() }()
	bus := gochannel.NewGoChannel(gochannel.Config{Persistent: true, BlockPublishUntilSubscriberAck: true}, nil)
	inbox, err := sqlinbox.New(db, "sqlite", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	w, err := worker.New(bus, inbox, worker.DeadLetterTo(bus), nil)
	if err != nil {
		fmt.Println(err)
		return
	}

	type OrderPlaced struct{ OrderID string }
	first := make(chan struct{})
	err = worker.HandleTx(w, "orders.confirm", "order.placed",
		func(ctx context.Context, tx *sql.Tx, e worker.Event[OrderPlaced]) error {
			fmt.Println("confirming", e.Payload.OrderID)
			close(first)
			_, err := tx.ExecContext(ctx, `INSERT INTO confirmed (order_id) VALUES (?)`, e.Payload.OrderID)
			return err
		})
	if err != nil {
		fmt.Println(err)
		return
	}
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()

	placed := message.NewMessage("order-42/placed", []byte(`{"OrderID": "42"}`))
	placed.Metadata.Set(worker.MetaKey, "order-42")
	_ = bus.Publish("order.placed", placed)
	<-first
	_ = bus.Publish("order.placed", placed) // again: returns when it was acknowledged
	stop()
	fmt.Println("drained:", <-ended)

	n, err := inbox.Count(context.Background(), "orders.confirm")
	fmt.Println("events handled:", n, err)
	// Output:
	// confirming 42
	// drained: <nil>
	// events handled: 1 <nil>
}

// openShop opens a database in memory with the inbox's table and one of its own.
func openShop(ctx context.Context) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:worker-example?mode=memory&cache=shared&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	files, err := sqlinbox.Migrations("sqlite")
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithTableName("firstcome_inbox_version"))
	if err != nil {
		return nil, err
	}
	if _, err := p.Up(ctx); err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `CREATE TABLE confirmed (order_id TEXT)`)
	return db, err
}
