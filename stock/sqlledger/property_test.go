package sqlledger

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firstcome/firstcome/stock"
)

// model is what the ledger should be, in a few lines.
type model struct {
	total, epoch int64
	keep         bool
	rows         map[stock.ID]*modelRow
}

type modelRow struct {
	quantity int64
	state    state
}

func (m *model) sum(s state) (n int64) {
	for _, r := range m.rows {
		if r.state == s {
			n += r.quantity
		}
	}
	return n
}

func (m *model) place(h stock.Hold) (existed bool, err error) {
	r := m.rows[h.ID]
	switch {
	case r == nil && h.Epoch != m.epoch:
		return false, stock.ErrFenced
	case r == nil:
		m.rows[h.ID] = &modelRow{h.Quantity, held}
		return false, nil
	case r.state == void || r.state == returned && r.quantity == h.Quantity:
		return false, stock.ErrTooLate
	case r.quantity != h.Quantity:
		return false, stock.ErrMismatch
	case r.state == cancelled:
		return false, stock.ErrCancelled
	case r.state == expired:
		return false, stock.ErrExpired
	}
	return true, nil
}

// ends are the answers to a step on a row that can't take it.
var ends = map[state]error{cancelled: stock.ErrCancelled, expired: stock.ErrExpired, void: stock.ErrExpired, returned: stock.ErrTooLate}

func (m *model) sell(ids ...stock.ID) error {
	var want int64
	slices.SortFunc(ids, compareIDs)
	for _, id := range ids {
		r := m.rows[id]
		switch {
		case r == nil:
			return stock.ErrNotFound
		case r.state == held:
			want += r.quantity
		case r.state != sold:
			return ends[r.state]
		}
	}
	if m.sum(sold)+want > m.total {
		return stock.ErrLedger
	}
	for _, id := range ids {
		m.rows[id].state = sold
	}
	return nil
}

func (m *model) cancel(id stock.ID) error {
	switch r := m.rows[id]; {
	case r == nil:
		return stock.ErrNotFound
	case r.state == held, r.state == cancelled:
		r.state = cancelled
		return nil
	case r.state == sold:
		return stock.ErrConfirmed
	default:
		return ends[r.state]
	}
}

func (m *model) giveBack(id stock.ID) error {
	switch r := m.rows[id]; {
	case r == nil:
		return stock.ErrNotFound
	case r.state == sold, r.state == returned:
		r.state = returned
		return nil
	case r.state == held:
		return stock.ErrNotConfirmed
	default:
		return ends[r.state]
	}
}

func (m *model) expire(id stock.ID) stock.Verdict {
	switch r := m.rows[id]; {
	case r == nil:
		m.rows[id] = &modelRow{0, void}
	case r.state == sold:
		return stock.IsSold
	case r.state == held && m.keep:
		return stock.Keep
	case r.state == held:
		r.state = expired
	}
	return stock.Free
}

func TestLedger_DoesWhatItsModelDoes(t *testing.T) {
	t.Parallel()
	e := newEnv(t, openDB(t, "sqlite"), "sqlite", nil)
	e.db.SetMaxOpenConns(1)
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		p := &property{
			e: *e, sku: fmt.Sprint("pool ", runs),
			m: model{total: rapid.Int64Range(1, 80).Draw(t, "total"), epoch: 1, keep: rapid.Bool().Draw(t, "keep"), rows: map[stock.ID]*modelRow{}},
		}
		ledger, err := New(e.db, "sqlite", &Options{Stripes: 4, ExpireWait: time.Minute, Unpaid: map[bool]Unpaid{true: KeepUnits}[p.m.keep]})
		if err != nil {
			t.Fatal(err)
		}
		p.e.Ledger = ledger
		if _, _, err := p.e.Open(t.Context(), stock.Pool{SKU: p.sku, Total: p.m.total}); err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"place": p.place, "sell": p.sell, "sell all": p.sellAll, "cancel": p.cancel,
			"return": p.giveBack, "expire": p.expire, "raise epoch": p.raise, "": p.check,
		})
	})
}

// property runs each step on the ledger and on the model.
type property struct {
	e   env
	m   model
	sku string
}

func (p *property) drawID(t *rapid.T) stock.ID { return p.drawHold(t).ID }

func (p *property) drawHold(t *rapid.T) stock.Hold {
	claim := rapid.Uint64Range(1, 12).Draw(t, "claim")
	hold := holdOf(p.sku, "ada", claim, rapid.SampledFrom([]int64{1, 1, 2, 17, 30}).Draw(t, "quantity"))
	hold.Epoch = max(1, p.m.epoch-rapid.SampledFrom([]int64{0, 0, 0, 1}).Draw(t, "behind"))
	return hold
}

func (p *property) same(t *rapid.T, got, want error) {
	if !errors.Is(got, want) || want == nil && got != nil {
		t.Fatalf("the ledger says %v, the model %v", got, want)
	}
}

func (p *property) place(t *rapid.T) {
	hold := p.drawHold(t)
	var existed bool
	err := p.e.in(t.Context(), func(tx *sql.Tx) (err error) {
		existed, err = p.e.Place(t.Context(), tx, hold, "ada")
		return err
	})
	wantExisted, want := p.m.place(hold)
	p.same(t, err, want)
	if existed != wantExisted {
		t.Fatalf("existed is %v, the model says %v", existed, wantExisted)
	}
}

func (p *property) sell(t *rapid.T) {
	id := p.drawID(t)
	p.same(t, p.e.sellOne(t.Context(), id), p.m.sell(id))
}

func (p *property) sellAll(t *rapid.T) {
	ids := []stock.ID{p.drawID(t), p.drawID(t), p.drawID(t)}
	err := p.e.in(t.Context(), func(tx *sql.Tx) error { return p.e.SellAll(t.Context(), tx, ids...) })
	p.same(t, err, p.m.sell(slices.CompactFunc(slices.SortedFunc(slices.Values(ids), compareIDs), func(a, b stock.ID) bool { return a == b })...))
}

func (p *property) cancel(t *rapid.T) {
	id := p.drawID(t)
	p.same(t, p.e.cancelOne(t.Context(), id), p.m.cancel(id))
}

func (p *property) giveBack(t *rapid.T) {
	id := p.drawID(t)
	p.same(t, p.e.returnOne(t.Context(), id), p.m.giveBack(id))
}

func (p *property) expire(t *rapid.T) {
	ids := []stock.ID{p.drawID(t), p.drawID(t)}
	got, err := p.e.Expire(t.Context(), p.sku, ids)
	p.same(t, err, nil)
	for i, id := range ids {
		if want := p.m.expire(id); got[i] != want {
			t.Fatalf("verdict %d is %v, the model says %v", i, got[i], want)
		}
	}
}

func (p *property) raise(t *rapid.T) {
	mark, raised, err := p.e.RaiseEpoch(t.Context(), p.sku, p.m.epoch)
	p.m.epoch++
	if err != nil || !raised || mark != (stock.Mark{Epoch: p.m.epoch}) {
		t.Fatalf("%v, raised %v, %v", mark, raised, err)
	}
}

func (p *property) check(t *rapid.T) {
	p.same(t, p.e.check(t.Context(), p.sku), nil)
	totals, err := p.e.Totals(t.Context(), p.sku)
	if want := (stock.Totals{Total: p.m.total, Held: p.m.sum(held), Sold: p.m.sum(sold)}); err != nil || totals != want {
		t.Fatalf("%+v, %v; the model says %+v", totals, err, want)
	}
	entries, err := p.e.Entries(t.Context(), p.sku, stock.ID{}, 100)
	p.same(t, err, nil)
	var want []stock.ID
	for id, r := range p.m.rows {
		if r.state == held || r.state == sold {
			want = append(want, id)
		}
	}
	slices.SortFunc(want, compareIDs)
	if !slices.EqualFunc(entries, want, func(e stock.Entry, id stock.ID) bool {
		return e.ID == id && e.Quantity == p.m.rows[id].quantity && e.State == p.m.rows[id].state.public()
	}) {
		t.Fatalf("%d entries, the model has %d", len(entries), len(want))
	}
}
