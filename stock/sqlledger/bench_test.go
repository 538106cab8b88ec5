package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
)

const (
	benchConns = 32
	benchFor   = 2 * time.Second

	benchStripes = defaultStripes
)

// BenchmarkLedger_OrdersAndSalesAtOnce lets half of 32 connections place orders
// and the other half sell them, on one pool, and compares with the same
// transactions without the ledger's statements, in turn on the same server. A
// transaction is what a shop's would be at least: the order's row and one of
// its outbox or inbox. Each iteration measures both for two seconds; run it
// with -benchtime=5x.
func BenchmarkLedger_OrdersAndSalesAtOnce(b *testing.B) {
	for dialect, open := range map[string]func(b *testing.B) *sql.DB{
		// As an application's would: what is committed is on disk.
		"postgres": func(b *testing.B) *sql.DB {
			b.Helper()
			return testenv.NewPostgres(b, "fsync = on", "full_page_writes = on").DB(b)
		},
		"mysql": func(b *testing.B) *sql.DB {
			b.Helper()
			return testenv.NewMariaDB(b, "innodb_flush_log_at_trx_commit = 1", "innodb_flush_method = fsync", "innodb_doublewrite = 1").DB(b)
		},
	} {
		b.Run(dialect, func(b *testing.B) {
			e := newEnv(b, open(b), dialect, &Options{Stripes: benchStripes})
			const messages = `CREATE TABLE messages (id CHAR(58) NOT NULL, kind VARCHAR(9) NOT NULL, body VARCHAR(1000), PRIMARY KEY (id, kind))`
			if _, err := e.db.ExecContext(b.Context(), messages); err != nil {
				b.Fatal(err)
			}
			e.db.SetMaxOpenConns(benchConns)
			e.db.SetMaxIdleConns(benchConns)
			var with, bare []load
			for i := 0; b.Loop(); i++ {
				sku := fmt.Sprint("pool ", i)
				e.open(b, sku, 10_000_000)
				bare = append(bare, e.load(b, "bare "+sku, false))
				with = append(with, e.load(b, sku, true))
				if err := e.check(b.Context(), sku); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(with, load.orderRate), "orders/s")
			b.ReportMetric(median(with, load.saleRate), "sales/s")
			b.ReportMetric(median(with, load.p99), "sale-p99-ms")
			b.ReportMetric(median(with, func(l load) float64 { return l.saleRate() / l.orderRate() }), "sales/orders")
			b.ReportMetric(median(bare, load.orderRate), "bare-orders/s")
			b.ReportMetric(median(bare, load.saleRate), "bare-sales/s")
			b.ReportMetric(median(with, load.orderRate)/median(bare, load.orderRate), "orders/bare")
			b.ReportMetric(median(with, load.saleRate)/median(bare, load.saleRate), "sales/bare")
		})
	}
}

// load is what one run came to.
type load struct {
	orders, sales int
	took          time.Duration
	waits         []time.Duration // of each sale
}

func (l load) orderRate() float64 { return float64(l.orders) / l.took.Seconds() }
func (l load) saleRate() float64  { return float64(l.sales) / l.took.Seconds() }
func (l load) p99() float64 {
	slices.Sort(l.waits)
	return float64(l.waits[len(l.waits)*99/100].Microseconds()) / 1000
}

func median(loads []load, of func(load) float64) float64 {
	figures := make([]float64, len(loads))
	for i, l := range loads {
		figures[i] = of(l)
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

// load places and sells for a while. Sales have a backlog, so that they are
// never short of orders.
func (e *env) load(b *testing.B, sku string, ledger bool) load {
	b.Helper()
	backlog := make(chan stock.ID, 1_000_000)
	claims := make(chan uint64)
	feed, stop := context.WithCancel(b.Context())
	defer stop()
	go func() {
		for n := uint64(1); ; n++ {
			select {
			case claims <- n:
			case <-feed.Done():
				close(claims)
				return
			}
		}
	}()
	place := func() {
		buyer := fmt.Sprint("buyer ", <-claims)
		hold := holdOf(sku, buyer, 1, 1)
		if err := e.placeLoad(b.Context(), hold, buyer, ledger); err != nil {
			b.Error(err)
		}
		backlog <- hold.ID
	}
	var prepare sync.WaitGroup
	for range benchConns {
		prepare.Go(func() {
			for range 150 {
				place()
			}
		})
	}
	prepare.Wait()

	var l load
	var mu sync.Mutex
	begun := time.Now()
	var clients sync.WaitGroup
	for range benchConns / 2 {
		clients.Go(func() {
			n := 0
			for ; time.Since(begun) < benchFor; n++ {
				place()
			}
			mu.Lock()
			defer mu.Unlock()
			l.orders += n
		})
		clients.Go(func() {
			var waits []time.Duration
			for time.Since(begun) < benchFor {
				start := time.Now()
				if err := e.sellLoad(b.Context(), <-backlog, ledger); err != nil {
					b.Error(err)
				}
				waits = append(waits, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			l.sales += len(waits)
			l.waits = append(l.waits, waits...)
		})
	}
	clients.Wait()
	l.took = time.Since(begun)
	return l
}

// placeLoad is the application's order, with the ledger's part or without.
func (e *env) placeLoad(ctx context.Context, hold stock.Hold, buyer string, ledger bool) error {
	return e.InTx(ctx, func(tx *sql.Tx) error {
		if ledger {
			if existed, err := e.Place(ctx, tx, hold, buyer); err != nil || existed {
				return errors.Join(err, fmt.Errorf("existed %v", existed))
			}
		}
		if _, err := tx.ExecContext(ctx, e.rebind(`INSERT INTO orders (id, state) VALUES (?, 'placed')`), hold.ID.String()); err != nil {
			return err
		}
		return e.message(ctx, tx, hold.ID, "outbox")
	})
}

// message is the other row of an application's transaction.
func (e *env) message(ctx context.Context, tx *sql.Tx, id stock.ID, kind string) error {
	query := e.rebind(`INSERT INTO messages (id, kind, body) VALUES (?, ?, ?)`)
	_, err := tx.ExecContext(ctx, query, id.String(), kind, strings.Repeat("x", 200))
	return err
}

// sellLoad is the application's sale, with the ledger's part or without.
func (e *env) sellLoad(ctx context.Context, id stock.ID, ledger bool) error {
	return e.InTx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, e.rebind(`UPDATE orders SET state = 'paid' WHERE id = ?`), id.String()); err != nil {
			return err
		}
		if ledger {
			if err := e.Sell(ctx, tx, id); err != nil {
				return err
			}
		}
		return e.message(ctx, tx, id, "inbox")
	})
}
