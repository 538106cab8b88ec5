package journal_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/journal"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// A ticket is reserved and sold; whoever listens to the topic hears of both.
func Example() {
	server, err := miniredis.Run() // a stand-in for Redis
	check(err)
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = client.Close() }()
	broker := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{}) // one for Kafka
	defer func() { _ = broker.Close() }()

	store, err := redisstock.New(client, nil, redisstock.JournalRelayed(0), nil)
	check(err)
	relay, err := journal.New(fxmodule.JournalReader(store), broker, "stock-events", journal.These("ticket"),
		&journal.Options{Logger: slog.New(slog.DiscardHandler)})
	check(err)
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()

	_, err = store.Open(ctx, stock.Pool{SKU: "ticket", Total: 100})
	check(err)
	hold, err := store.Reserve(ctx, stock.Request{ID: stock.NewID("ticket", "ann", [16]byte{1}), SKU: "ticket", Buyer: "ann", Quantity: 2})
	check(err)
	_, err = store.Confirm(ctx, hold.ID)
	check(err)
	relay.Notify("ticket") // optional: go now, not at the next poll

	messages, err := broker.Subscribe(ctx, "stock-events")
	check(err)
	for range 2 {
		message := <-messages
		var e journal.Event
		check(e.UnmarshalJSON(message.Payload))
		fmt.Println(e.Seq, e.Kind, e.Quantity, message.UUID == e.MessageID(), message.Metadata[outbox.MetadataKey] == hold.ID.String())
		message.Ack()
	}
	stop()
	fmt.Println(<-done)
	// Output:
	// 1 reserved 2 true true
	// 2 confirmed 2 true true
	// <nil>
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
