package sqloutbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
)

// BenchmarkAdd is a transaction that inserts an order, without and with a message.
func BenchmarkAdd(b *testing.B) {
	db := testenv.Postgres(b).DB(b)
	store := newStore(b, db, "postgres")
	if _, err := db.Exec("CREATE TABLE orders (id bigint PRIMARY KEY, body text)"); err != nil {
		b.Fatal(err)
	}
	var id atomic.Int64
	for name, messages := range map[string]int{"OrderAlone": 0, "WithMessage": 1, "WithTenMessages": 10} {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n := id.Add(1)
					x, err := db.Begin()
					if err == nil {
						_, err = x.Exec("INSERT INTO orders VALUES ($1, 'an order')", n)
					}
					if err == nil && messages > 0 {
						err = store.Add(b.Context(), x, batch(n, messages)...)
					}
					if err == nil {
						err = x.Commit()
					}
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func batch(n int64, count int) []outbox.Message {
	msgs := make([]outbox.Message, count)
	for i := range msgs {
		msgs[i] = outbox.Message{ID: fmt.Sprintf("%d/%d", n, i), Topic: "orders", Key: fmt.Sprint(n), Payload: make([]byte, 200)}
	}
	return msgs
}

// counter accepts everything.
type counter struct {
	n    atomic.Int64
	want int64
	done chan struct{}
}

func (c *counter) Publish(_ string, msgs ...*message.Message) error {
	if c.n.Add(int64(len(msgs))) == c.want {
		close(c.done)
	}
	return nil
}

func (c *counter) Close() error { return nil }

type batchCounter struct{ *counter }

func (c batchCounter) PublishBatch(_ context.Context, batch []*message.Message) []error {
	_ = c.Publish("", batch...)
	return make([]error, len(batch))
}

// BenchmarkRelay is rows relayed from a full table to a publisher that takes no
// time: what reading and deleting cost.
func BenchmarkRelay(b *testing.B) {
	b.Run("PostgreSQL/OneAtATime", func(b *testing.B) { relayAll(b, testenv.Postgres(b).DB(b), "postgres", false) })
	b.Run("PostgreSQL/Batches", func(b *testing.B) { relayAll(b, testenv.Postgres(b).DB(b), "postgres", true) })
	b.Run("SQLite/Batches", func(b *testing.B) { relayAll(b, sqliteDB(b), "sqlite", true) })
	b.Run("MariaDB/Batches", func(b *testing.B) { relayAll(b, testenv.MariaDB(b).DB(b), "mysql", true) })
}

func relayAll(b *testing.B, db *sql.DB, dialect string, batches bool) {
	b.Helper()
	store := newStore(b, db, dialect)
	fill(b, db, store, b.N)
	c := &counter{want: int64(b.N), done: make(chan struct{})}
	var pub message.Publisher = c
	if batches {
		pub = batchCounter{c}
	}
	relay, err := outbox.NewRelay(store, pub, []string{"orders"}, &outbox.Options{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	b.ResetTimer()
	go func() { done <- relay.Run(ctx) }()
	<-c.done
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func fill(b *testing.B, db *sql.DB, store *sqloutbox.Store, n int) {
	b.Helper()
	for from := 0; from < n; from += 1000 {
		x, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		var msgs []outbox.Message
		for i := from; i < min(n, from+1000); i++ {
			msgs = append(msgs, outbox.Message{ID: fmt.Sprint(i), Topic: "orders", Key: fmt.Sprint(i % 5000), Payload: make([]byte, 200)})
		}
		if err := store.Add(b.Context(), x, msgs...); err != nil {
			b.Fatal(err)
		}
		if err := x.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}
