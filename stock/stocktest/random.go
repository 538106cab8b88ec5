package stocktest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firstcome/firstcome/stock"
)

// Random compares a store with the [Model] over random sequences of
// operations. The store must not have a ledger, and Pass must be exact; without
// one (nil) no hold ends, and the times in answers are not compared.
func Random(t *testing.T, h Harness) {
	rapid.Check(t, func(rt *rapid.T) {
		p, err := drawPool(rt).Normalize()
		if err != nil {
			rt.Fatal(err)
		}
		store, model := h.New(t), NewModel(p, h.Now(t))
		if _, err := store.Open(t.Context(), p); err != nil {
			rt.Fatal(err)
		}
		pair := &pair{t: t, rt: rt, h: h, store: store, model: model}
		steps := map[string]func(*rapid.T){
			"reserve": pair.reserve,
			"confirm": pair.step(whole(store.Confirm), func(id stock.ID) (stock.State, error) { return model.Confirm(id) }),
			"part":    pair.part,
			"extend":  pair.extend,
			"adjust":  pair.adjust,
			"cancel":  pair.step(store.Cancel, model.Cancel),
			"return":  pair.step(store.Return, model.Return),
			"lookup":  pair.step(store.Lookup, model.Lookup),
			"time":    pair.time,
			"":        pair.check,
		}
		if h.Pass == nil {
			delete(steps, "time")
		}
		rt.Repeat(steps)
	})
}

// drawPool makes the terms of one sequence: half of the pools have several SKUs.
func drawPool(rt *rapid.T) stock.Pool {
	p := stock.Pool{
		SKU:   fmt.Sprintf("random-%x", Claim()),
		Limit: rapid.Int64Range(0, 5).Draw(rt, "limit"),
		Hold:  time.Minute,
		Late:  rapid.SampledFrom([]stock.Late{stock.LateRefused, stock.LateIfFree}).Draw(rt, "late"),
	}
	if rapid.Bool().Draw(rt, "one SKU") {
		p.Total = rapid.Int64Range(1, 12).Draw(rt, "total")
		return p
	}
	for i := range rapid.IntRange(1, 3).Draw(rt, "items") {
		p.Items = append(p.Items, stock.Item{
			SKU:   fmt.Sprintf("item-%d", i),
			Total: rapid.Int64Range(1, 8).Draw(rt, "total"),
			Limit: rapid.Int64Range(0, 4).Draw(rt, "item limit"),
		})
	}
	return p
}

// whole confirms all of a reservation.
func whole(confirm func(context.Context, stock.ID, ...stock.Line) (stock.Hold, error)) func(context.Context, stock.ID) (stock.Hold, error) {
	return func(ctx context.Context, id stock.ID) (stock.Hold, error) { return confirm(ctx, id) }
}

// pair is a store and its model, in step.
type pair struct {
	t     *testing.T
	rt    *rapid.T
	h     Harness
	store stock.Store
	model *Model
	used  []stock.Request
}

func (p *pair) reserve(rt *rapid.T) {
	buyer := rapid.SampledFrom([]string{"ann", "bob", "cay"}).Draw(rt, "buyer")
	r := stock.Request{SKU: p.model.Terms.SKU, Buyer: buyer}
	if len(p.model.Terms.Items) == 0 {
		r.Quantity = rapid.Int64Range(1, 4).Draw(rt, "quantity")
	} else {
		r.Lines = p.lines(rt)
	}
	r.ID = stock.NewID(r.SKU, buyer, Claim())
	if len(p.used) > 0 && rapid.IntRange(0, 3).Draw(rt, "again") == 0 {
		old := rapid.SampledFrom(p.used).Draw(rt, "old")
		if rapid.Bool().Draw(rt, "same content") {
			r = old
		} else {
			r.ID = old.ID
		}
	}
	p.used = append(p.used, r)
	hold, err := p.store.Reserve(p.t.Context(), r)
	state, want := p.model.Reserve(r)
	p.compare(rt, "reserve", hold.State, err, state, want)
}

// lines are some units of the pool's SKUs, one of which may stand twice.
func (p *pair) lines(rt *rapid.T) []stock.Line {
	var lines []stock.Line
	for range rapid.IntRange(1, 3).Draw(rt, "lines") {
		sku := p.model.Terms.SKU
		if items := p.model.Terms.Items; len(items) > 0 {
			sku = rapid.SampledFrom(items).Draw(rt, "item").SKU
		}
		lines = append(lines, stock.Line{SKU: sku, Quantity: rapid.Int64Range(1, 2).Draw(rt, "quantity")})
	}
	return lines
}

// used draws one of the IDs that were tried.
func (p *pair) id(rt *rapid.T) stock.ID {
	if len(p.used) == 0 {
		rt.Skip("nothing reserved yet")
	}
	return rapid.SampledFrom(p.used).Draw(rt, "id").ID
}

func (p *pair) part(rt *rapid.T) {
	id, lines := p.id(rt), p.lines(rt)
	hold, err := p.store.Confirm(p.t.Context(), id, lines...)
	state, want := p.model.Confirm(id, lines...)
	p.compare(rt, "confirm a part", hold.State, err, state, want)
}

func (p *pair) extend(rt *rapid.T) {
	id, until := p.id(rt), p.h.Now(p.t).Add(time.Duration(rapid.IntRange(1, 200).Draw(rt, "seconds"))*time.Second)
	hold, err := p.store.Extend(p.t.Context(), id, until)
	state, want := p.model.Extend(id, until)
	p.compare(rt, "extend", hold.State, err, state, want)
}

func (p *pair) adjust(rt *rapid.T) {
	a := stock.Adjustment{ID: Claim(), SKU: p.model.Terms.SKU, Version: p.model.Terms.Version}
	if rapid.IntRange(0, 5).Draw(rt, "stale") == 0 {
		a.Version++
	}
	switch rapid.IntRange(0, 3).Draw(rt, "what") {
	case 0:
		a.Pause = true
	case 1:
		a.Resume = true
	default:
		a.Add = p.lines(rt)[:1]
		a.Force = rapid.Bool().Draw(rt, "force")
		if rapid.Bool().Draw(rt, "less") {
			a.Add[0].Quantity = -a.Add[0].Quantity
		}
	}
	// What has ended still counts as held in a store, until somebody looks.
	if _, err := p.store.Adjust(p.t.Context(), a); !sameOutcome(err, p.model.Adjust(a)) {
		rt.Fatalf("adjust %+v: store %v, model %+v", a, err, p.model.Levels())
	}
	if rapid.Bool().Draw(rt, "repeat") {
		if _, err := p.store.Adjust(p.t.Context(), a); !sameOutcome(err, p.model.Adjust(a)) {
			rt.Fatalf("adjust again %+v: store %v, model %+v", a, err, p.model.Levels())
		}
	}
}

func sameOutcome(got, want error) bool {
	return (got == nil) == (want == nil) && (got == nil || sameError(got, want))
}

func (p *pair) step(real func(context.Context, stock.ID) (stock.Hold, error), model func(stock.ID) (stock.State, error)) func(*rapid.T) {
	return func(rt *rapid.T) {
		id := p.id(rt)
		hold, err := real(p.t.Context(), id)
		state, want := model(id)
		p.compare(rt, "step", hold.State, err, state, want)
	}
}

func (p *pair) time(rt *rapid.T) {
	d := time.Duration(rapid.IntRange(1, 70).Draw(rt, "seconds")) * time.Second
	p.h.Pass(p.t, d)
	p.model.Now = p.h.Now(p.t)
}

// check compares the counts: the store may count as held what has expired.
func (p *pair) check(rt *rapid.T) {
	got, err := p.store.Levels(p.t.Context(), p.model.Terms.SKU)
	if err != nil {
		rt.Fatal(err)
	}
	want := p.model.Levels()
	if got.Sold != want.Sold || got.Free > want.Free || got.Free+got.Held+got.Sold != got.Total+got.Over ||
		got.Total != want.Total || got.Paused != want.Paused || got.Version != want.Version {
		rt.Fatalf("store %+v, model %+v", got, want)
	}
}

func (p *pair) compare(rt *rapid.T, step string, state stock.State, err error, wantState stock.State, want error) {
	var a, b *stock.AllHeldError
	if p.h.Pass == nil && errors.As(err, &a) && errors.As(want, &b) && sameItem(err, want) {
		return
	}
	if (err == nil) != (want == nil) || err == nil && state != wantState || err != nil && !sameError(err, want) {
		rt.Fatalf("%s: store %v, %v; model %v, %v", step, state, err, wantState, want)
	}
}

// sameItem reports whether two refusals are about the same SKU, if any.
func sameItem(a, b error) bool {
	var ia, ib *stock.ItemError
	if errors.As(a, &ia) != errors.As(b, &ib) {
		return false
	}
	return ia == nil || ia.SKU == ib.SKU
}

func sameError(a, b error) bool {
	if !sameItem(a, b) {
		return false
	}
	var va, vb *stock.VersionError
	if errors.As(a, &va) && errors.As(b, &vb) {
		return va.Version == vb.Version
	}
	var oa, ob *stock.OverError
	if errors.As(a, &oa) && errors.As(b, &ob) {
		return oa.By == ob.By
	}
	for _, sentinel := range []error{stock.ErrSoldOut, stock.ErrUnknownSKU, stock.ErrInvalid} {
		if errors.Is(a, sentinel) && errors.Is(b, sentinel) {
			return true
		}
	}
	var la, lb *stock.LimitError
	if errors.As(a, &la) && errors.As(b, &lb) {
		return la.Remaining == lb.Remaining
	}
	var ha, hb *stock.AllHeldError
	if errors.As(a, &ha) && errors.As(b, &hb) {
		return ha.RetryAfter == hb.RetryAfter
	}
	var ma, mb *stock.MismatchError
	if errors.As(a, &ma) && errors.As(b, &mb) {
		return ma.Field == mb.Field
	}
	return errors.Is(a, b) || errors.Is(b, a)
}
