package app

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqlinbox"
)

// Audit is what the books say. Every figure is read from a store.
type Audit struct {
	OK         bool          `json:"ok"`
	Settled    bool          `json:"settled"` // no order is open and every event is handled
	Stock      stock.Levels  `json:"stock"`
	Ledger     stock.Totals  `json:"ledger"`
	Orders     auditOrders   `json:"orders"`
	Events     auditEvents   `json:"events"`
	Payments   auditPayments `json:"payments"`
	Violations []string      `json:"violations"`

	unpaid int64 // confirmed orders that were not charged what they cost
}

type auditOrders struct {
	Held      int64 `json:"held"`
	Confirmed int64 `json:"confirmed"`
	Cancelled int64 `json:"cancelled"`
	Unsettled int64 `json:"unsettled"` // for which something is left to do
	Units     int64 `json:"units"`     // in confirmed orders
	Buyers    int64 `json:"buyers"`    // who have a confirmed order
}

type auditEvents struct {
	Written int64 `json:"written"` // orders: each wrote one event in its transaction
	Relayed int64 `json:"relayed"` // acknowledged by the broker
	Pending int64 `json:"pending"`
	Parked  int64 `json:"parked"`
	Handled int64 `json:"handled"` // marks in the inbox
	Dead    int64 `json:"dead"`    // dead letters, requeued ones included
	Dropped int64 `json:"dropped"` // dead letters given up
}

type auditPayments struct {
	Charged int64 `json:"charged"` // charges that reached a card
	Voided  int64 `json:"voided"`
	Units   int64 `json:"units"` // paid for
}

// auditor compares the stores. Its answer is kept for a second.
type auditor struct {
	cfg    Config
	db     *sql.DB
	stock  stock.Store
	ledger stock.Ledger
	outbox outbox.Store
	inbox  *sqlinbox.Inbox

	letters map[string]worker.LetterOperator // by source

	mu   sync.Mutex
	last Audit
	at   time.Time
}

const auditAge = time.Second

func (a *auditor) audit(ctx context.Context) (Audit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.at) < auditAge {
		return a.last, nil
	}
	got, err := a.read(ctx)
	if err != nil {
		return Audit{}, err
	}
	a.last, a.at = got, time.Now()
	return got, nil
}

// read goes against the flow of an order, from its last effect to its first:
// what is read later may only be ahead of what was read before, so a sale in
// progress is never mistaken for a fault.
func (a *auditor) read(ctx context.Context) (Audit, error) {
	got := Audit{Violations: []string{}}
	for _, step := range []func(context.Context, *Audit) error{
		a.readPayments, a.readInbox, a.readLetters, a.readUnpaid, a.readOrders, a.readOutbox, a.readStock,
	} {
		if err := step(ctx, &got); err != nil {
			return Audit{}, fmt.Errorf("audit: %w", err)
		}
	}
	e := &got.Events
	got.Settled = got.Orders.Held == 0 && got.Orders.Unsettled == 0 && e.Handled+e.Dropped >= e.Written &&
		e.Pending == 0 && e.Parked == 0 && e.Dead == 0
	a.judge(&got)
	if got.Settled {
		if err := a.readPayments(ctx, &got); err != nil { // those of before may be older than the orders
			return Audit{}, fmt.Errorf("audit: %w", err)
		}
		if err := a.compareStock(ctx, &got); err != nil {
			return Audit{}, fmt.Errorf("audit: %w", err)
		}
	}
	got.OK = len(got.Violations) == 0
	return got, nil
}

func (a *auditor) readPayments(ctx context.Context, got *Audit) error {
	p := &got.Payments
	return a.db.QueryRowContext(ctx, `
		SELECT (SELECT COUNT(*) FROM shop_charge),
		       (SELECT COALESCE(SUM(quantity), 0) FROM shop_charge),
		       (SELECT COUNT(*) FROM shop_payment WHERE status = 'voided')`,
	).Scan(&p.Charged, &p.Units, &p.Voided)
}

// readUnpaid compares orders with their charges in one statement: two would see
// two moments. An order whose event was handled before it is charged by then.
func (a *auditor) readUnpaid(ctx context.Context, got *Audit) error {
	var twice int64
	err := a.db.QueryRowContext(ctx, `
		SELECT (SELECT COUNT(*) FROM (SELECT payment_id FROM shop_charge GROUP BY payment_id HAVING COUNT(*) > 1) AS twice),
		       (SELECT COUNT(*) FROM shop_order o WHERE o.sku = $1 AND o.status = 'confirmed' AND NOT EXISTS
		           (SELECT 1 FROM shop_charge c WHERE c.payment_id = o.id AND c.quantity = o.quantity))`, a.cfg.SKU,
	).Scan(&twice, &got.unpaid)
	if err != nil {
		return err
	}
	got.fault(twice > 0, "%d orders were charged twice", twice)
	return nil
}

func (a *auditor) readInbox(ctx context.Context, got *Audit) (err error) {
	got.Events.Handled, err = a.inbox.Count(ctx, handlerName)
	return err
}

// lettersShown bounds how many letters of one source are named.
const lettersShown = 20

// readLetters counts what was given up, and names it by source, number and class:
// an operator looks it up on the admin address.
func (a *auditor) readLetters(ctx context.Context, got *Audit) error {
	stats, err := a.letters["worker"].LetterStats(ctx)
	if err != nil {
		return err
	}
	for _, s := range stats {
		switch {
		case s.Handler != handlerName:
		case s.State == worker.LetterDropped:
			got.Events.Dropped += s.Count
		default:
			got.Events.Dead += s.Count
		}
	}
	for _, source := range slices.Sorted(maps.Keys(a.letters)) {
		page, err := a.letters[source].Letters(ctx, worker.LetterQuery{State: worker.LetterDead, Limit: lettersShown + 1})
		if err != nil {
			return err
		}
		for i := range page[:min(len(page), lettersShown)] {
			got.fault(true, "given up: %s/%d, %s", source, page[i].Seq, page[i].Class)
		}
		got.fault(len(page) > lettersShown, "given up: %s, more than %d", source, lettersShown)
	}
	return nil
}

func (a *auditor) readOrders(ctx context.Context, got *Audit) error {
	o := &got.Orders
	var stray, over int64
	err := a.db.QueryRowContext(ctx, `
		SELECT COALESCE(SUM(CASE WHEN status = 'held' THEN 1 ELSE 0 END), 0),
		       COALESCE(SUM(CASE WHEN status = 'confirmed' THEN 1 ELSE 0 END), 0),
		       COALESCE(SUM(CASE WHEN status = 'cancelled' THEN 1 ELSE 0 END), 0),
		       COALESCE(SUM(CASE WHEN settled_at = 0 THEN 1 ELSE 0 END), 0),
		       COALESCE(SUM(CASE WHEN status = 'confirmed' THEN quantity ELSE 0 END), 0),
		       COUNT(DISTINCT CASE WHEN status = 'confirmed' THEN buyer END),
		       (SELECT COUNT(*) FROM shop_charge c WHERE NOT EXISTS
		           (SELECT 1 FROM shop_order o WHERE o.id = c.payment_id AND o.status = 'confirmed')),
		       (SELECT COUNT(*) FROM (SELECT buyer FROM shop_order WHERE sku = $1 AND status <> 'cancelled'
		           GROUP BY buyer HAVING SUM(quantity) > $2) AS greedy)
		FROM shop_order WHERE sku = $1`, a.cfg.SKU, a.limit(),
	).Scan(&o.Held, &o.Confirmed, &o.Cancelled, &o.Unsettled, &o.Units, &o.Buyers, &stray, &over)
	if err != nil {
		return err
	}
	got.Events.Written = o.Held + o.Confirmed + o.Cancelled
	got.fault(stray > 0, "%d charges without a sale", stray)
	got.fault(over > 0, "%d buyers are over the limit of %d", over, a.cfg.Limit)
	return nil
}

func (a *auditor) limit() int64 {
	if a.cfg.Limit == 0 {
		return stock.MaxQuantity
	}
	return a.cfg.Limit
}

func (a *auditor) readOutbox(ctx context.Context, got *Audit) error {
	s, err := a.outbox.Stats(ctx)
	if err != nil {
		return err
	}
	got.Events.Relayed, got.Events.Pending, got.Events.Parked = s.Relayed, s.Pending, s.Parked+s.Held
	return nil
}

func (a *auditor) readStock(ctx context.Context, got *Audit) (err error) {
	if got.Ledger, err = a.ledger.Totals(ctx, a.cfg.SKU); err != nil {
		return err
	}
	got.Stock, err = a.stock.Levels(ctx, a.cfg.SKU)
	return err
}

// compareStock names the reservations on which Redis and the ledger differ,
// where nothing is on its way between the two any more.
func (a *auditor) compareStock(ctx context.Context, got *Audit) error {
	found, err := a.stock.Audit(ctx, a.cfg.SKU)
	if err != nil {
		return err
	}
	for _, f := range found.Faults {
		got.fault(true, "%v", f)
	}
	return nil
}

// judge states what must hold at any moment, and what must once all is settled.
func (a *auditor) judge(got *Audit) {
	s, l, o, p := got.Stock, got.Ledger, got.Orders, got.Payments
	got.fault(s.Free+s.Held+s.Sold != s.Total, "free %d + held %d + sold %d is not %d", s.Free, s.Held, s.Sold, s.Total)
	got.fault(s.Free < 0, "free is %d", s.Free)
	got.fault(s.Sold > s.Total || l.Sold > l.Total, "oversold: %d in Redis, %d in the ledger, of %d", s.Sold, l.Sold, s.Total)
	got.fault(got.Events.Handled > got.Events.Written, "%d events handled, %d written", got.Events.Handled, got.Events.Written)
	got.fault(p.Units > l.Sold, "%d units charged, %d sold", p.Units, l.Sold)
	if !got.Settled {
		return
	}
	got.fault(o.Units != l.Sold, "%d units in confirmed orders, %d sold in the ledger", o.Units, l.Sold)
	got.fault(l.Held != 0, "%d units are held in the ledger by no open order", l.Held)
	got.fault(got.Events.Relayed != got.Events.Written, "%d events written, %d relayed", got.Events.Written, got.Events.Relayed)
	got.fault(s.Sold != l.Sold, "%d sold in Redis, %d in the ledger", s.Sold, l.Sold)
	got.fault(got.unpaid > 0, "%d sales were not charged, or not what they cost", got.unpaid)
}

func (a *Audit) fault(is bool, format string, args ...any) {
	if is {
		a.Violations = append(a.Violations, fmt.Sprintf(format, args...))
	}
}
