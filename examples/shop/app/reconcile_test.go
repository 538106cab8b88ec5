package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/sqlledger"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqldead"
)

// books is a shop without its loops: each step is the test's.
type books struct {
	t       *testing.T
	db      fxmodule.Database
	ledger  *sqlledger.Ledger
	stock   *redisstock.Store
	outbox  *sqloutbox.Store
	letters *sqldead.Store
	counter *counter
	c       *checkout
	n       byte
}

const (
	testHold     = 50 * time.Millisecond
	testPatience = 50 * time.Millisecond
	testUnits    = 100
)

func newBooks(t *testing.T, target string, unpaid stock.Unpaid) *books {
	t.Helper()
	p := new(parts)
	t.Cleanup(func() { _ = p.close() })
	must(t, p.openDB(t.Context(), Config{DB: target}))
	must(t, migrate(t.Context(), p.db))
	b := &books{t: t, db: p.db}
	var err error
	b.ledger, err = sqlledger.New(p.db.DB, p.db.Dialect, nil)
	must(t, err)
	b.stock, err = redisstock.New(testenv.Mini(t), b.ledger, redisstock.JournalOff, nil)
	must(t, err)
	b.outbox, err = sqloutbox.New(p.db.DB, p.db.Dialect, nil)
	must(t, err)
	b.letters, err = sqldead.New(p.db.DB, p.db.Dialect, nil)
	must(t, err)
	_, err = b.stock.Open(t.Context(), stock.Pool{SKU: "ticket", Total: testUnits, Hold: testHold, Unpaid: unpaid})
	must(t, err)
	o := orders{p.db.DB}
	b.counter = &counter{stock: b.stock, ledger: b.ledger, outbox: b.outbox, orders: o, notify: func() {}}
	b.c = &checkout{ledger: b.ledger, stock: b.stock, orders: o, pay: &provider{db: p.db.DB}}
	return b
}

func (b *books) reconciler() *reconciler {
	return &reconciler{
		sku: "ticket", every: time.Millisecond, patience: testPatience, ledger: b.ledger, checkout: b.c,
		letters: b.letters, parked: fxmodule.ParkedLetters(b.outbox),
	}
}

// place puts an order; its event is in the outbox then.
func (b *books) place() Order {
	b.t.Helper()
	b.n++
	buyer := fmt.Sprint("buyer-", b.n)
	id := stock.NewID("ticket", buyer, [16]byte{1, b.n})
	hold, err := b.stock.Reserve(b.t.Context(), stock.Request{ID: id, SKU: "ticket", Buyer: buyer, Quantity: 1})
	must(b.t, err)
	o := Order{ID: orderID(id), Reservation: id, SKU: "ticket", Buyer: buyer, Quantity: 1, Expires: hold.Expires, Placed: time.Now(), Status: "held"}
	_, err = b.counter.place(b.t.Context(), hold, o)
	must(b.t, err)
	return o
}

func placedOf(o Order) placed {
	return placed{OrderID: o.ID, Reservation: o.Reservation, SKU: o.SKU, Quantity: o.Quantity}
}

// handle is what a worker does with the order's event.
func (b *books) handle(ctx context.Context, o Order) error {
	return b.c.handle(ctx, worker.Event[placed]{ID: eventID(o.Reservation), Key: o.ID, Payload: placedOf(o)})
}

// relayed takes the events out of the outbox: the broker has them.
func (b *books) relayed() { b.exec(`DELETE FROM firstcome_outbox`) }

func (b *books) exec(query string) {
	b.t.Helper()
	_, err := b.db.DB.ExecContext(b.t.Context(), query)
	must(b.t, err)
}

func (b *books) bury(o Order) int64 {
	b.t.Helper()
	b.relayed()
	payload, err := json.Marshal(placedOf(o))
	must(b.t, err)
	must(b.t, b.letters.Put(b.t.Context(), worker.Letter{
		Handler: handlerName, Topic: topicOrders, EventID: eventID(o.Reservation), Key: o.ID, Payload: payload, Class: worker.ClassFailed, Attempts: 10,
	}))
	l, err := b.letters.Find(b.t.Context(), handlerName, eventID(o.Reservation))
	must(b.t, err)
	return l.Seq
}

func (b *books) park() {
	b.exec(`INSERT INTO firstcome_outbox_parked (lane, seq, format, topic, msg_key, id, headers, payload, written_at, held, attempts, reason, parked_at)
		SELECT lane, seq, format, topic, msg_key, id, headers, payload, written_at, false, 3, 'refused', 0 FROM firstcome_outbox`)
	b.relayed()
}

// The steps of a worker that died, or was told no, after each of them.
func (b *books) authorised(o Order) { must(b.t, b.c.pay.authorise(b.t.Context(), o.ID, 1)) }
func (b *books) sold(o Order)       { b.authorised(o); must(b.t, b.c.sell(b.t.Context(), placedOf(o))) }
func (b *books) charged(o Order)    { b.sold(o); must(b.t, b.c.complete(b.t.Context(), placedOf(o))) }

// anOrderIsWhere are the places in which an order and its event may be when the
// hold has ended.
var anOrderIsWhere = []struct {
	name string
	make func(b *books, o Order)
	sold bool // before its hold ended
	keep string
}{
	// keep is what the reconciler leaves of an order whose pool keeps units.
	{"EventInTheOutbox", func(*books, Order) {}, false, "waits"},
	{"EventParked", func(b *books, _ Order) { b.park() }, false, "waits"},
	{"EventInTheBroker", func(b *books, _ Order) { b.relayed() }, false, "waits"},
	{"DeadLetter", func(b *books, o Order) { b.bury(o) }, false, "requeued"},
	{"DeadLetter_Authorised", func(b *books, o Order) { b.authorised(o); b.bury(o) }, false, "requeued"},
	{"Requeued", func(b *books, o Order) { must(b.t, b.letters.Requeue(b.t.Context(), b.bury(o))) }, false, "requeued"},
	{"InAWorkersHand", func(b *books, o Order) {
		seq := b.bury(o)
		must(b.t, b.letters.Requeue(b.t.Context(), seq))
		_, _, err := b.letters.Take(b.t.Context(), seq, "w", time.Hour)
		must(b.t, err)
	}, false, "requeued"},
	{"Dropped_Authorised", func(b *books, o Order) { b.authorised(o); must(b.t, b.letters.Drop(b.t.Context(), b.bury(o))) }, false, "cancelled"},
	{"Sold_NotCharged_DeadLetter", func(b *books, o Order) { b.sold(o); b.bury(o) }, true, "confirmed"},
	{"Sold_NotCharged_Dropped", func(b *books, o Order) { b.sold(o); must(b.t, b.letters.Drop(b.t.Context(), b.bury(o))) }, true, "confirmed"},
	{"Sold_NotCharged_EventInTheBroker", func(b *books, o Order) { b.sold(o); b.relayed() }, true, "confirmed"},
	{"Charged_NotSettled_DeadLetter", func(b *books, o Order) { b.charged(o); b.bury(o) }, true, "confirmed"},
	{"Charged_NotSettled", func(b *books, o Order) { b.charged(o); b.relayed() }, true, "confirmed"},
}

// eachLedger runs a test on a fresh ledger of each database and policy.
func eachLedger(t *testing.T, test func(t *testing.T, b *books, unpaid stock.Unpaid)) {
	for policy, unpaid := range map[string]stock.Unpaid{"lose": stock.LoseUnits, "keep": stock.KeepUnits} {
		t.Run("SQLite_"+policy, func(t *testing.T) {
			test(t, newBooks(t, "sqlite://"+filepath.Join(t.TempDir(), "shop.db"), unpaid), unpaid)
		})
		t.Run("PostgreSQL_"+policy, func(t *testing.T) {
			test(t, newBooks(t, testenv.Postgres(t).NewDatabase(t), unpaid), unpaid)
		})
	}
}

func TestAnOverdueOrderIsFinishedWhereverItStands(t *testing.T) {
	eachLedger(t, func(t *testing.T, b *books, unpaid stock.Unpaid) {
		for _, c := range anOrderIsWhere {
			t.Run(c.name, func(t *testing.T) {
				parent := b.t
				b.t = t
				defer func() { b.t = parent }()
				o := b.place()
				c.make(b, o)
				time.Sleep(testHold + testPatience + 20*time.Millisecond) // Redis has a clock of its own
				r := b.reconciler()
				must(t, r.round(t.Context()))
				must(t, r.round(t.Context())) // again changes nothing
				want := c.keep
				switch {
				case c.sold:
					want = "confirmed"
				case unpaid == stock.LoseUnits:
					want = "cancelled"
				}
				b.is(o, want)
				b.arrives(o)
				if want == "waits" || want == "requeued" {
					want = "confirmed"
				}
				b.is(o, want)
				b.relayed()
			})
		}
		b.balance()
	})
}

// is checks where the order stands, and what belongs to that.
func (b *books) is(o Order, want string) {
	b.t.Helper()
	ctx := b.t.Context()
	got, err := b.c.orders.get(ctx, o.ID)
	must(b.t, err)
	charges, settled := b.count(`SELECT COUNT(*) FROM shop_charge WHERE payment_id = $1`, o.ID), b.count(`SELECT COUNT(*) FROM shop_order WHERE id = $1 AND settled_at > 0`, o.ID)
	entries, err := b.ledger.Find(ctx, "ticket", []stock.ID{o.Reservation})
	must(b.t, err)
	letter, err := b.letters.Find(ctx, handlerName, eventID(o.Reservation))
	if err != nil && !errors.Is(err, worker.ErrNoLetter) {
		b.t.Fatal(err)
	}
	state, sum := entries[0].State, fmt.Sprintf("order %s, ledger %v, %d charges, settled %d, letter %q", got.Status, entries[0].State, charges, settled, letter.State)
	bad := false
	switch want {
	case "waits", "requeued":
		bad = got.Status != "held" || state != stock.Held || charges != 0 || settled != 0 || (want == "requeued") != (letter.State == worker.LetterRequeued)
	case "cancelled":
		bad = got.Status != want || (state != stock.Cancelled && state != stock.Expired) || charges != 0 || settled != 1 || letter.State == worker.LetterDead
	case "confirmed":
		bad = got.Status != want || state != stock.Sold || charges != 1 || settled != 1 || letter.State == worker.LetterDead
	}
	if bad {
		b.t.Errorf("want %s: %s", want, sum)
	}
}

func (b *books) count(query string, args ...any) (n int) {
	b.t.Helper()
	must(b.t, b.db.DB.QueryRowContext(b.t.Context(), query, args...).Scan(&n))
	return n
}

// arrives is what comes after the reconciler: the event is delivered after all,
// and again, or its letter is run, unless it was dropped.
func (b *books) arrives(o Order) {
	b.t.Helper()
	ctx := b.t.Context()
	l, err := b.letters.Find(ctx, handlerName, eventID(o.Reservation))
	if err == nil && l.State == worker.LetterDropped {
		return
	}
	must(b.t, b.handle(ctx, o))
	must(b.t, b.handle(ctx, o))
	if err == nil {
		b.exec(fmt.Sprintf(`DELETE FROM firstcome_dead_letter WHERE seq = %d`, l.Seq))
	}
}

// balance checks that nothing is stranded and nothing charged without a unit.
func (b *books) balance() {
	b.t.Helper()
	levels, err := b.stock.Levels(b.t.Context(), "ticket")
	must(b.t, err)
	totals, err := b.ledger.Totals(b.t.Context(), "ticket")
	must(b.t, err)
	charges := int64(b.count(`SELECT COUNT(*) FROM shop_charge`))
	open := b.count(`SELECT COUNT(*) FROM shop_payment WHERE status = 'authorised'`)
	confirmed := int64(b.count(`SELECT COUNT(*) FROM shop_order WHERE status = 'confirmed'`))
	if levels.Held != 0 || totals.Held != 0 || levels.Sold != totals.Sold || charges != totals.Sold || confirmed != totals.Sold ||
		levels.Free+levels.Sold != levels.Total || open != 0 {
		b.t.Errorf("stock %+v, ledger %+v, %d charges, %d confirmed, %d authorised", levels, totals, charges, confirmed, open)
	}
}

// Two reconcilers and two workers are at the same orders at the same time.
func TestReconcilersBesideWorkersChargeOnceAndStrandNothing(t *testing.T) {
	eachLedger(t, func(t *testing.T, b *books, _ stock.Unpaid) {
		const n = 30
		list := make([]Order, n)
		for i := range list {
			list[i] = b.place()
			switch i % 3 {
			case 1:
				b.bury(list[i])
			case 2:
				b.authorised(list[i])
			}
		}
		time.Sleep(testHold + testPatience + 20*time.Millisecond)
		var all sync.WaitGroup
		for w := range 2 {
			all.Go(func() {
				for i := range list {
					b.insist(list[(i*7+w*n/2)%n])
				}
			})
			all.Go(func() {
				r := b.reconciler()
				for range 5 {
					_ = r.round(t.Context()) // what it could not do, the next does
				}
			})
		}
		all.Wait()
		must(t, b.reconciler().round(t.Context()))
		if n := b.count(`SELECT COUNT(*) FROM shop_order WHERE settled_at = 0 OR status = 'held'`); n != 0 {
			t.Errorf("%d orders are left", n)
		}
		b.balance()
	})
}

// insist handles an order's event until it is handled, as a worker does.
func (b *books) insist(o Order) {
	for try := 0; ; try++ {
		err := b.handle(b.t.Context(), o)
		if err == nil {
			return
		}
		if try > 50 {
			b.t.Errorf("order %s: %v", o.ID, err)
			return
		}
	}
}

// Giving an order up and selling it meet at the ledger's row: whoever comes first
// there decides on the money, too.
func TestGivingUpBesideASaleChargesWhatIsSoldAndNothingElse(t *testing.T) {
	eachLedger(t, func(t *testing.T, b *books, _ stock.Unpaid) {
		for range 30 {
			o := b.place()
			b.authorised(o)
			var both sync.WaitGroup
			both.Go(func() { b.insist(o) })
			both.Go(func() {
				for try := 0; ; try++ {
					err := b.c.giveUp(t.Context(), placedOf(o))
					if err == nil {
						return
					}
					if try > 50 {
						t.Errorf("give up: %v", err)
						return
					}
				}
			})
			both.Wait()
		}
		b.balance()
	})
}

// awayStock is a stock whose Redis is away.
type awayStock struct {
	stock.Store
	away bool
}

func (s *awayStock) Confirm(ctx context.Context, id stock.ID, part ...stock.Line) (stock.Hold, error) {
	if s.away {
		return stock.Hold{}, stock.ErrUnknown
	}
	return s.Store.Confirm(ctx, id, part...)
}

func (s *awayStock) Cancel(ctx context.Context, id stock.ID) (stock.Hold, error) {
	if s.away {
		return stock.Hold{}, stock.ErrUnknown
	}
	return s.Store.Cancel(ctx, id)
}

// A round that breaks off in the middle leaves its orders to the next.
func TestARoundThatRedisBreaksOffIsFinishedByTheNext(t *testing.T) {
	eachLedger(t, func(t *testing.T, b *books, unpaid stock.Unpaid) {
		away := &awayStock{Store: b.stock, away: true}
		b.c.stock = away
		sold, dead, dropped := b.place(), b.place(), b.place()
		b.sold(sold)
		b.bury(sold)
		b.bury(dead)
		b.authorised(dropped)
		must(t, b.letters.Drop(t.Context(), b.bury(dropped)))
		time.Sleep(testHold + testPatience + 20*time.Millisecond)
		r := b.reconciler()
		if err := r.round(t.Context()); !errors.Is(err, stock.ErrUnknown) {
			t.Errorf("the round: %v", err)
		}
		if n := b.count(`SELECT COUNT(*) FROM shop_order WHERE settled_at > 0`); n != 0 {
			t.Errorf("%d orders are said to be settled", n)
		}
		if n := b.count(`SELECT COUNT(*) FROM shop_charge`); n != 0 {
			t.Errorf("%d are charged before Redis knows", n)
		}
		away.away = false
		must(t, r.round(t.Context()))
		b.is(sold, "confirmed")
		b.is(dropped, "cancelled")
		if unpaid == stock.KeepUnits {
			b.is(dead, "requeued")
			b.arrives(dead)
			b.is(dead, "confirmed")
		} else {
			b.is(dead, "cancelled")
		}
		b.balance()
	})
}

// What it can't finish yet does not keep it from what comes behind.
func TestARoundGoesOnWhereTheLastOneEnded(t *testing.T) {
	b := newBooks(t, "sqlite://"+filepath.Join(t.TempDir(), "shop.db"), stock.KeepUnits)
	r := b.reconciler()
	first, last := b.place(), b.place()
	b.relayed()
	b.exec(`UPDATE shop_order SET expires_at = 1000`)
	page, err := b.c.orders.overdue(t.Context(), "ticket", time.Now(), Order{}, 1)
	must(t, err)
	next, err := b.c.orders.overdue(t.Context(), "ticket", time.Now(), page[0], 1)
	must(t, err)
	none, err := b.c.orders.overdue(t.Context(), "ticket", time.Now(), next[0], 1)
	must(t, err)
	if page[0].ID == next[0].ID || len(none) != 0 || page[0].ID != min(first.ID, last.ID) {
		t.Errorf("pages %v, %v, %v", page, next, none)
	}
	must(t, r.round(t.Context()))
	if r.after != (Order{}) {
		t.Errorf("begins at %+v", r.after)
	}
}

func TestALetterIsRequeuedTheMoreRarelyTheMoreOftenItFailed(t *testing.T) {
	r := &reconciler{every: 30 * time.Second}
	for requeues, want := range map[int]time.Duration{0: 0, 1: time.Minute, 3: 4 * time.Minute, 10: time.Hour, 1000: time.Hour} {
		if got := r.again(requeues); got != want {
			t.Errorf("after %d: %v, want %v", requeues, got, want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// slowStock is a stock that answers late for one order.
type slowStock struct {
	stock.Store
	slow stock.ID
}

func (s *slowStock) Cancel(ctx context.Context, id stock.ID) (stock.Hold, error) {
	if id == s.slow {
		<-ctx.Done()
		return stock.Hold{}, ctx.Err()
	}
	return s.Store.Cancel(ctx, id)
}

// An order that takes all of a round's time keeps the next round from none of
// those behind it.
func TestAnOrderThatHangsHoldsUpNoOther(t *testing.T) {
	b := newBooks(t, "sqlite://"+filepath.Join(t.TempDir(), "shop.db"), stock.LoseUnits)
	first, second := b.place(), b.place()
	b.relayed()
	b.exec(`UPDATE shop_order SET expires_at = 1000`)
	if first.ID > second.ID {
		first = second
	}
	b.c.stock = &slowStock{b.stock, first.Reservation}
	time.Sleep(testHold + testPatience + 20*time.Millisecond)
	r := b.reconciler()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_ = r.round(ctx)
		cancel()
	}
	if n := b.count(`SELECT COUNT(*) FROM shop_order WHERE settled_at > 0`); n != 1 {
		t.Errorf("%d of the orders behind it are settled", n)
	}
}
