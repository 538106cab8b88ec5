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
// operations. The store must not have a ledger, and Pass must be exact.
func Random(t *testing.T, h Harness) {
	rapid.Check(t, func(rt *rapid.T) {
		p, err := stock.Pool{
			SKU:   fmt.Sprintf("random-%x", Claim()),
			Total: rapid.Int64Range(1, 12).Draw(rt, "total"),
			Limit: rapid.Int64Range(0, 5).Draw(rt, "limit"),
			Hold:  time.Minute,
		}.Normalize()
		if err != nil {
			rt.Fatal(err)
		}
		store, model := h.New(t), NewModel(p, h.Now(t))
		if _, err := store.Open(t.Context(), p); err != nil {
			rt.Fatal(err)
		}
		pair := &pair{t: t, rt: rt, h: h, store: store, model: model}
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": pair.reserve,
			"confirm": pair.step(store.Confirm, model.Confirm),
			"cancel":  pair.step(store.Cancel, model.Cancel),
			"return":  pair.step(store.Return, model.Return),
			"lookup":  pair.step(store.Lookup, model.Lookup),
			"time":    pair.time,
			"":        pair.check,
		})
	})
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
	r := stock.Request{SKU: p.model.Pool.SKU, Buyer: buyer, Quantity: rapid.Int64Range(1, 4).Draw(rt, "quantity")}
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

func (p *pair) step(real func(context.Context, stock.ID) (stock.Hold, error), model func(stock.ID) (stock.State, error)) func(*rapid.T) {
	return func(rt *rapid.T) {
		if len(p.used) == 0 {
			rt.Skip("nothing reserved yet")
		}
		id := rapid.SampledFrom(p.used).Draw(rt, "id").ID
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
	got, err := p.store.Levels(p.t.Context(), p.model.Pool.SKU)
	if err != nil {
		rt.Fatal(err)
	}
	want := p.model.Levels()
	if got.Sold != want.Sold || got.Free > want.Free || got.Free+got.Held+got.Sold != got.Total {
		rt.Fatalf("store %+v, model %+v", got, want)
	}
}

func (p *pair) compare(rt *rapid.T, step string, state stock.State, err error, wantState stock.State, want error) {
	if (err == nil) != (want == nil) || err == nil && state != wantState || err != nil && !sameError(err, want) {
		rt.Fatalf("%s: store %v, %v; model %v, %v", step, state, err, wantState, want)
	}
}

func sameError(a, b error) bool {
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
