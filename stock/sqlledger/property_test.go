package sqlledger

import (
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firstcome/firstcome/stock"
)

// model is what the ledger should be, in a few lines. Units are counted by item:
// one, or those of a pool with baskets.
type model struct {
	totals         []int64
	epoch, version int64
	keep, baskets  bool
	rows           map[stock.ID]*modelRow
}

type modelRow struct {
	asked, now []int64
	state      state
}

func (m *model) sum(s state) []int64 {
	n := make([]int64, len(m.totals))
	for _, r := range m.rows {
		if r.state == s {
			n = plus(n, r.now)
		}
	}
	return n
}

func plus(a, b []int64) []int64 {
	out := slices.Clone(a)
	for i := range b {
		out[i] += b[i]
	}
	return out
}

// within reports whether no unit of a is more than in b.
func within(a, b []int64) bool {
	for i := range a {
		if a[i] > b[i] {
			return false
		}
	}
	return true
}

func (m *model) place(h stock.Hold, asked []int64) (existed bool, err error) {
	r := m.rows[h.ID]
	switch {
	case r == nil && h.Epoch != m.epoch:
		return false, stock.ErrFenced
	case r == nil:
		m.rows[h.ID] = &modelRow{asked, asked, held}
		return false, nil
	case r.state == void || r.state == returned && slices.Equal(r.asked, asked):
		return false, stock.ErrTooLate
	case !slices.Equal(r.asked, asked):
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

// sell sells the part of one ID, or all of several.
func (m *model) sell(part []int64, ids ...stock.ID) error {
	want := m.sum(sold)
	for _, id := range ids {
		r := m.rows[id]
		if r == nil {
			return stock.ErrNotFound
		}
		keep := part
		if keep == nil {
			keep = r.asked
		}
		switch {
		case r.state != held && r.state != sold:
			return ends[r.state]
		case !within(keep, r.asked) || r.state == sold && !slices.Equal(keep, r.now):
			return stock.ErrMismatch
		case r.state == held:
			want = plus(want, keep)
		}
	}
	if !within(want, m.totals) {
		return stock.ErrLedger
	}
	for _, id := range ids {
		r := m.rows[id]
		if r.state = sold; part != nil {
			r.now = part
		}
	}
	return nil
}

// adjust adds units of one item, or takes them out.
func (m *model) adjust(version int64, add []int64) error {
	next := plus(m.totals, add)
	switch {
	case version != m.version:
		return stock.ErrVersion
	case slices.Min(next) < 0:
		return stock.ErrInvalid
	case !within(m.sum(sold), next):
		return stock.ErrOver
	}
	m.version, m.totals = m.version+1, next
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
		none := make([]int64, len(m.totals))
		m.rows[id] = &modelRow{none, none, void}
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
		p := &property{e: *e, sku: fmt.Sprint("pool ", runs), m: model{epoch: 1, version: 1, rows: map[stock.ID]*modelRow{}}}
		p.m.keep, p.m.baskets = rapid.Bool().Draw(t, "keep"), rapid.Bool().Draw(t, "baskets")
		pool := stock.Pool{SKU: p.sku, Unpaid: map[bool]stock.Unpaid{true: stock.KeepUnits}[p.m.keep]}
		for i := range map[bool]int{false: 1, true: 3}[p.m.baskets] {
			p.m.totals = append(p.m.totals, rapid.Int64Range(1, 80).Draw(t, "total"))
			if p.m.baskets {
				pool.Items = append(pool.Items, stock.Item{SKU: string(rune('a' + i)), Total: p.m.totals[i]})
			} else {
				pool.Total = p.m.totals[i]
			}
		}
		ledger, err := New(e.db, "sqlite", &Options{Stripes: 4, ExpireWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		p.e.Ledger, p.pool = ledger, pool
		if _, _, _, err := p.e.Open(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"place": p.place, "sell": p.sell, "sell all": p.sellAll, "cancel": p.cancel, "adjust": p.adjust,
			"return": p.giveBack, "expire": p.expire, "raise epoch": p.raise, "": p.check,
		})
	})
}

// property runs each step on the ledger and on the model.
type property struct {
	e    env
	m    model
	sku  string
	pool stock.Pool
}

func (p *property) drawID(t *rapid.T) stock.ID {
	return holdOf(p.sku, "ada", rapid.Uint64Range(1, 12).Draw(t, "claim"), 1).ID
}

// drawUnits draws some of each item, and not none in all.
func (p *property) drawUnits(t *rapid.T, label string) []int64 {
	units := make([]int64, len(p.m.totals))
	for i := range units {
		units[i] = rapid.SampledFrom([]int64{0, 1, 1, 2, 17, 30}).Draw(t, label)
	}
	if sum(units) == 0 {
		units[0] = 1
	}
	return units
}

// lines are the units as a caller writes them.
func (p *property) lines(units []int64) []stock.Line {
	if p.m.baskets {
		return p.pool.Lines(units)
	}
	return []stock.Line{line("", units[0])}
}

func (p *property) drawHold(t *rapid.T) (stock.Hold, []int64) {
	asked := p.drawUnits(t, "quantity")
	hold := stock.Hold{
		ID: p.drawID(t), SKU: p.sku, Quantity: sum(asked), State: stock.Held, Expires: time.UnixMilli(1_900_000_000_000),
		Epoch: max(1, p.m.epoch-rapid.SampledFrom([]int64{0, 0, 0, 1}).Draw(t, "behind")),
	}
	if p.m.baskets {
		hold.Lines = p.lines(asked)
	}
	return hold, asked
}

func (p *property) same(t *rapid.T, got, want error) {
	if !errors.Is(got, want) || want == nil && got != nil {
		t.Fatalf("the ledger says %v, the model %v", got, want)
	}
}

func (p *property) place(t *rapid.T) {
	hold, asked := p.drawHold(t)
	var existed bool
	err := p.e.in(t.Context(), func(tx *sql.Tx) (err error) {
		existed, err = p.e.Place(t.Context(), tx, hold, "ada")
		return err
	})
	wantExisted, want := p.m.place(hold, asked)
	p.same(t, err, want)
	if existed != wantExisted {
		t.Fatalf("existed is %v, the model says %v", existed, wantExisted)
	}
}

func (p *property) sell(t *rapid.T) {
	id := p.drawID(t)
	var units []int64
	var part []stock.Line
	if rapid.Bool().Draw(t, "part") {
		units = p.drawUnits(t, "of it")
		if r := p.m.rows[id]; r != nil && r.state != void { // most often what there is
			for i := range units {
				units[i] = min(units[i], r.asked[i]+rapid.SampledFrom([]int64{0, 0, 0, 1}).Draw(t, "more"))
			}
		}
		if sum(units) == 0 {
			units[0] = 1
		}
		part = p.lines(units)
	}
	p.same(t, p.e.sellOne(t.Context(), id, part...), p.m.sell(units, id))
}

func (p *property) sellAll(t *rapid.T) {
	ids := []stock.ID{p.drawID(t), p.drawID(t), p.drawID(t)}
	err := p.e.in(t.Context(), func(tx *sql.Tx) error { return p.e.SellAll(t.Context(), tx, ids...) })
	p.same(t, err, p.m.sell(nil, sortedIDs(ids)...))
}

func (p *property) cancel(t *rapid.T) {
	id := p.drawID(t)
	p.same(t, p.e.cancelOne(t.Context(), id), p.m.cancel(id))
}

func (p *property) giveBack(t *rapid.T) {
	id := p.drawID(t)
	p.same(t, p.e.returnOne(t.Context(), id), p.m.giveBack(id))
}

func (p *property) adjust(t *rapid.T) {
	add := make([]int64, len(p.m.totals))
	item := rapid.IntRange(0, len(add)-1).Draw(t, "item")
	add[item] = rapid.SampledFrom([]int64{-40, -7, -1, 1, 5, 40}).Draw(t, "add")
	version := p.m.version - rapid.SampledFrom([]int64{0, 0, 0, 1}).Draw(t, "old")
	if version < 1 {
		return
	}
	_, err := p.e.Adjust(t.Context(), p.e.change(p.sku, version, p.lines(add)...))
	p.same(t, err, p.m.adjust(version, add))
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
	heldUnits, soldUnits := p.m.sum(held), p.m.sum(sold)
	want := stock.Totals{Total: sum(p.m.totals), Held: sum(heldUnits), Sold: sum(soldUnits)}
	for i, item := range p.pool.Items {
		want.Items = append(want.Items, stock.ItemTotals{SKU: item.SKU, Total: p.m.totals[i], Held: heldUnits[i], Sold: soldUnits[i]})
	}
	totals, err := p.e.Totals(t.Context(), p.sku)
	if err != nil || !reflect.DeepEqual(totals, want) {
		t.Fatalf("%+v, %v; the model says %+v", totals, err, want)
	}
	var ids []stock.ID
	for id, r := range p.m.rows {
		if r.state == held || r.state == sold {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, compareIDs)
	entries, err := p.e.Entries(t.Context(), p.sku, stock.ID{}, 100)
	p.same(t, err, nil)
	found, err := p.e.Find(t.Context(), p.sku, ids)
	p.same(t, err, nil)
	if !reflect.DeepEqual(entries, found) && len(ids) > 0 || len(entries) != len(ids) {
		t.Fatalf("the entries are %+v, and found are %+v", entries, found)
	}
	for _, entry := range entries {
		r := p.m.rows[entry.ID]
		released := p.lines(minus(r.asked, r.now))
		if !p.m.baskets {
			released = nil
			if n := r.asked[0] - r.now[0]; n > 0 {
				released = []stock.Line{line(p.sku, n)}
			}
		}
		if entry.Quantity != sum(r.now) || entry.State != r.state.public() ||
			!slices.Equal(entry.Lines, p.pool.Lines(r.now)) || !slices.Equal(entry.Released, released) {
			t.Fatalf("%+v; the model says %+v", entry, r)
		}
	}
}
