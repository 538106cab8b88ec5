package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqldead"
)

// away is how long Redis is gone in mid-sale: 5 s, or what SHOP_TEST_AWAY says.
// The whole length, by hand:
//
//	SHOP_TEST_AWAY=80s go test ./examples/shop -run TestRedisAwayInMidSale -timeout 15m -v
func away() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("SHOP_TEST_AWAY")); err == nil && d > 0 {
		return d
	}
	return 5 * time.Second
}

// Kafka and PostgreSQL stay up. Every order settles and is charged once, also
// where its hold ended meanwhile: the pool keeps its unit.
func TestRedisAwayInMidSale_EveryOrderSettlesAndIsChargedOnce(t *testing.T) {
	f := newFleet(t, kafka(t), map[string]int{"web": 2, "relay": 1, "worker": 2},
		"-unpaid", "keep", "-patience", "5s", "-reconcile", "2s")
	gone := false
	winners := f.crowd(400, func(served int) {
		if served >= 60 && !gone {
			gone = true
			f.redis.Kill()
			time.Sleep(away())
			f.redis.Restart()
		}
	})
	if !gone {
		t.Fatal("Redis was never away")
	}
	f.agree(f.books(fleetStock))
	if winners != fleetStock {
		t.Errorf("%d buyers were told that they won", winners)
	}
}

// dead opens the fleet's dead letters.
func (f *fleet) dead() (*sqldead.Store, *sql.DB) {
	f.t.Helper()
	db, err := sql.Open("pgx", f.db)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = db.Close() })
	s, err := sqldead.New(db, "postgres", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return s, db
}

// bury puts the events of all orders to the dead letters, before any worker has
// seen them: what the broker delivers of them does not run.
func (f *fleet) bury(s *sqldead.Store, db *sql.DB) (letters []int64) {
	f.t.Helper()
	rows, err := db.QueryContext(f.t.Context(), `SELECT id, reservation_id, sku, quantity FROM shop_order ORDER BY id`)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var p struct {
			OrderID     string `json:"order_id"`
			Reservation string `json:"reservation_id"`
			SKU         string `json:"sku"`
			Quantity    int64  `json:"quantity"`
		}
		if err := rows.Scan(&p.OrderID, &p.Reservation, &p.SKU, &p.Quantity); err != nil {
			f.t.Fatal(err)
		}
		payload, err := json.Marshal(p)
		if err != nil {
			f.t.Fatal(err)
		}
		l := worker.Letter{
			Handler: "order.checkout", Topic: "orders", EventID: p.Reservation + "/placed", Key: p.OrderID,
			Payload: payload, Metadata: map[string]string{worker.MetaKey: p.OrderID}, Class: worker.ClassFailed, Err: "buried", Attempts: 10,
		}
		if err := s.Put(f.t.Context(), l); err != nil {
			f.t.Fatal(err)
		}
		stored, err := s.Find(f.t.Context(), l.Handler, l.EventID)
		if err != nil {
			f.t.Fatal(err)
		}
		letters = append(letters, stored.Seq)
	}
	if err := rows.Err(); err != nil {
		f.t.Fatal(err)
	}
	return letters
}

// An operator requeues one; the reconciler does the rest, by the pool's policy.
func TestOrdersWhoseEventsWereBuriedAreFinished(t *testing.T) {
	for _, c := range []struct {
		unpaid    string
		confirmed int64 // at least; the requeued one is in time or not
		cancelled int64
	}{
		{"keep", 20, 0}, {"lose", 0, 19},
	} {
		t.Run(c.unpaid, func(t *testing.T) {
			const orders = 20
			f := newFleet(t, kafka(t), map[string]int{"web": 1, "relay": 1},
				"-unpaid", c.unpaid, "-hold", "4s", "-patience", "1s", "-reconcile", "1s")
			if winners := f.crowd(orders, nil); winners != orders {
				t.Fatalf("%d of %d buyers won", winners, orders)
			}
			s, db := f.dead()
			letters := f.bury(s, db)
			f.start("worker-0", "worker")
			f.start("worker-1", "worker")
			res, err := http.Post(fmt.Sprintf("%s/letters/worker/%d/requeue", f.admin, letters[0]), "", nil) //nolint:noctx // the fleet's own
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusConflict {
				t.Errorf("requeue: %d", res.StatusCode)
			}
			a := f.books(orders)
			if !a.OK || a.Orders.Confirmed < c.confirmed || a.Orders.Cancelled < c.cancelled || a.Orders.Confirmed+a.Orders.Cancelled != orders ||
				a.Payments.Charged != a.Orders.Confirmed || a.Stock.Free != fleetStock-a.Orders.Confirmed || a.Events.Dead != 0 {
				t.Errorf("the books: %+v", a)
			}
		})
	}
}
