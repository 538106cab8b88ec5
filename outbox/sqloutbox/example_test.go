package sqloutbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"strings"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
)

// An order and the message about it stand or fall together.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	db, err := sql.Open("sqlite", "file:example?mode=memory&cache=shared")
	check(err)
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	migrateUp(db)
	_, err = db.Exec("CREATE TABLE orders (id TEXT PRIMARY KEY)")
	check(err)

	store, err := sqloutbox.New(db, "sqlite", nil)
	check(err)
	broker := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{})
	relay, err := outbox.NewRelay(store, broker, []string{"orders"}, nil)
	check(err)
	done := make(chan error)
	go func() { done <- relay.Run(ctx) }()

	place := func(id string, commit bool) {
		tx, err := db.BeginTx(ctx, nil)
		check(err)
		defer func() { _ = tx.Rollback() }()
		_, err = tx.Exec("INSERT INTO orders VALUES (?)", id)
		check(err)
		check(store.Add(ctx, tx, outbox.Message{ID: id + "/placed", Topic: "orders", Key: id, Payload: []byte(`{"order":"` + id + `"}`)}))
		if commit {
			check(tx.Commit())
			relay.Notify()
		}
	}
	place("o-1", true)
	place("o-2", false) // rolled back: nobody hears of it
	place("o-3", true)

	messages, err := broker.Subscribe(ctx, "orders")
	check(err)
	got := map[string]string{}
	for range 2 {
		msg := <-messages
		got[msg.UUID] = string(msg.Payload)
		msg.Ack()
	}
	fmt.Println(got["o-1/placed"])
	fmt.Println(got["o-3/placed"])

	stop()
	check(<-done)
	stats, err := store.Stats(context.Background())
	check(err)
	fmt.Println("pending", stats.Pending, "relayed", stats.Relayed)
	// Output:
	// {"order":"o-1"}
	// {"order":"o-3"}
	// pending 0 relayed 2
}

// migrateUp runs the schema by hand; goose does it better.
func migrateUp(db *sql.DB) {
	files, err := sqloutbox.Migrations("sqlite")
	check(err)
	text, err := fs.ReadFile(files, "00001_firstcome_outbox.sql")
	check(err)
	up, _, _ := strings.Cut(string(text), "-- +goose Down")
	_, err = db.Exec(up)
	check(err)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
