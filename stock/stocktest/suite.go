package stocktest

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Harness gives the suite a store and its clock.
type Harness struct {
	// New returns a store for one test. SKUs of different tests may meet on
	// one server; the suite makes their names different.
	New func(t *testing.T) stock.Store
	// Now reads the store's clock.
	Now func(t *testing.T) time.Time
	// Pass lets time pass on the store's clock.
	Pass func(t *testing.T, d time.Duration)
	// Ledger says that the store has one: a hold past its time is then told as
	// held until the ledger has spoken.
	Ledger bool
}

// A bench is one test's store with an open pool.
type bench struct {
	Harness
	t     *testing.T
	store stock.Store
	pool  stock.Pool
}

func (h Harness) open(t *testing.T, edit func(p *stock.Pool)) *bench {
	t.Helper()
	b := &bench{Harness: h, t: t, store: h.New(t), pool: stock.Pool{SKU: "sku-" + rand.Text(), Total: 10, Hold: time.Hour}}
	if edit != nil {
		edit(&b.pool)
	}
	if _, err := b.store.Open(t.Context(), b.pool); err != nil {
		t.Fatalf("open: %v", err)
	}
	return b
}

// Claim returns a fresh claim part, for tests.
func Claim() (c [16]byte) {
	_, _ = rand.Read(c[:])
	return c
}

// ask is a request of a buyer for one unit, to be edited.
func (b *bench) ask(buyer string, quantity int64) stock.Request {
	return stock.Request{ID: stock.NewID(b.pool.SKU, buyer, Claim()), SKU: b.pool.SKU, Buyer: buyer, Quantity: quantity}
}

func (b *bench) reserve(r stock.Request) stock.Hold {
	b.t.Helper()
	hold, err := b.store.Reserve(b.t.Context(), r)
	for range 500 {
		// A slow ledger is waited for only for a moment: no final no.
		if !b.Ledger || !errors.Is(err, stock.ErrAllHeld) || !pause(b.t) {
			break
		}
		hold, err = b.store.Reserve(b.t.Context(), r)
	}
	if err != nil {
		b.t.Fatalf("reserve: %v", err)
	}
	return hold
}

func (b *bench) refused(r stock.Request, want error) {
	b.t.Helper()
	_ = b.refusal(r, want)
}

// refusal is refused, and returns the error for a closer look.
func (b *bench) refusal(r stock.Request, want error) error {
	b.t.Helper()
	hold, err := b.store.Reserve(b.t.Context(), r)
	if !errors.Is(err, want) {
		b.t.Fatalf("reserve: got %+v, %v; want %v", hold, err, want)
	}
	return err
}

func (b *bench) levels(free, held, sold int64) {
	b.t.Helper()
	l, err := b.store.Levels(b.t.Context(), b.pool.SKU)
	if err != nil {
		b.t.Fatalf("levels: %v", err)
	}
	if l.Free != free || l.Held != held || l.Sold != sold || l.Total != free+held+sold {
		b.t.Fatalf("levels %+v, want free %d, held %d, sold %d", l, free, held, sold)
	}
}

// want checks a step's outcome; err nil wants success.
func (b *bench) want(step func(context.Context, stock.ID) (stock.Hold, error), id stock.ID, state stock.State, err error) stock.Hold {
	b.t.Helper()
	hold, got := step(b.t.Context(), id)
	if !errors.Is(got, err) || got == nil && hold.State != state {
		b.t.Fatalf("got %v, %v; want %v, %v", hold.State, got, state, err)
	}
	return hold
}

// Run holds a store to the contract of [stock.Store].
func Run(t *testing.T, h Harness) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"a crowd gets exactly the units there are", crowd},
		{"a winner who retries after the sell-out gets the original hold", winnerRetries},
		{"a used ID with other content names the field and changes nothing", mismatch},
		{"the limit names the remaining allowance and lets the rest be taken", limit},
		{"a cancelled hold gives the allowance back", cancelledAllowance},
		{"an expired hold is taken over by the next buyer in the same call", takeover},
		{"an expired hold gives its buyer the allowance back", expiredAllowance},
		{"each state allows its steps and a repeat is the same success", states},
		{"confirm at the expiry fails and keeps failing", confirmAtExpiry},
		{"a returned unit is sold again, once", returned},
		{"all held names the next expiry, sold out is final", twoKindsOfNo},
		{"before opening, after closing and past the deadline nothing is held", times},
		{"an attempt older than the retention is refused as too late", tooOld},
		{"opening again changes nothing and other terms are refused", openTwice},
		{"an unknown SKU and an unknown ID are told as such", strangers},
		{"malformed requests are refused and change nothing", malformed},
		{"one buyer's requests in one batch are judged one after the other", sameBuyerBatch},
		{"one ID sent by many at once is held once", sameIDAtOnce},
		{"only first attempts are refused from memory", memoryAnswers},
		{"quantities up to the largest are exact", largest},
		{"many holds that end at once are all taken over", manyEnd},
		{"of a part that is confirmed the rest is free in the same step", part},
		{"a part that is confirmed twice is the same and another part is a mismatch", otherPart},
		{"a basket is held whole or not at all and the reason names the SKU", basket},
		{"a SKU that stands on two lines counts for both", twoLines},
		{"a basket of two pools is refused by name before anything is held", twoPools},
		{"two baskets that name their SKUs in another order are both decided", basketsAtOnce},
		{"the limit of one SKU holds beside that of the pool", itemLimit},
		{"a late confirmation takes a free unit where the policy allows it", lateIfFree},
		{"a late confirmation takes over a unit whose hold has ended", lateTakesOver},
		{"a late confirmation without stock is refused the same way each time", lateNoStock},
		{"an extended hold ends at its new time and never earlier", extended},
		{"units are added by a delta on a known version, once", added},
		{"only free units are taken out, unless by force, and freed ones go there first", takenOut},
		{"a paused pool sells nothing and its holds live on", paused},
		{"a pool opens and closes at the time that it is told", reopened},
		{"what a finished pool held and sold is audited, and it retires", retires},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) { test.run(t, h) })
	}
}

func crowd(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Limit = 100, 1 })
	var wins, losses atomic.Int64
	var wg sync.WaitGroup
	for range 600 {
		wg.Go(func() {
			r := b.ask("buyer-"+rand.Text(), 1)
			r.First = true
			switch hold, err := b.store.Reserve(t.Context(), r); {
			case err == nil && hold.State == stock.Held && !hold.Repeated:
				wins.Add(1)
			case errors.Is(err, stock.ErrAllHeld):
				losses.Add(1)
			default:
				t.Errorf("got %+v, %v", hold, err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 100 || losses.Load() != 500 {
		t.Fatalf("%d won, %d lost; want 100 and 500", wins.Load(), losses.Load())
	}
	b.levels(0, 100, 0)
}

func winnerRetries(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Total = 1 })
	r := b.ask("ann", 1)
	first := b.reserve(r)
	b.refused(b.ask("bob", 1), stock.ErrAllHeld)
	again := b.reserve(r)
	if !again.Repeated || again.State != stock.Held || !again.Expires.Equal(first.Expires) {
		t.Fatalf("first %+v, again %+v", first, again)
	}
	b.levels(0, 1, 0)
}

func mismatch(t *testing.T, h Harness) {
	b := h.open(t, nil)
	r := b.ask("ann", 2)
	b.reserve(r)
	for field, edit := range map[string]func(r *stock.Request){
		"quantity": func(r *stock.Request) { r.Quantity = 3 },
		"buyer":    func(r *stock.Request) { r.Buyer = "bob" },
		"sku":      func(r *stock.Request) { r.SKU += "x" },
	} {
		other := r
		edit(&other)
		var m *stock.MismatchError
		if err := b.refusal(other, stock.ErrMismatch); !errors.As(err, &m) || m.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	b.levels(8, 2, 0)
}

func limit(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Limit = 4 })
	b.reserve(b.ask("ann", 3))
	var l *stock.LimitError
	if err := b.refusal(b.ask("ann", 2), stock.ErrLimit); !errors.As(err, &l) || l.Remaining != 1 {
		t.Fatalf("got %v", err)
	}
	b.reserve(b.ask("ann", 1))
	b.refused(b.ask("ann", 1), stock.ErrLimit)
	b.refused(b.ask("bob", 5), stock.ErrLimit)
	b.levels(6, 4, 0)
}

func cancelledAllowance(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Limit = 1 })
	hold := b.reserve(b.ask("ann", 1))
	b.refused(b.ask("ann", 1), stock.ErrLimit)
	b.want(b.store.Cancel, hold.ID, stock.Cancelled, nil)
	b.reserve(b.ask("ann", 1))
	b.levels(9, 1, 0)
}

// hold that ends soon, yet not before a slow machine has used it.
const brief = 300 * time.Millisecond

func takeover(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Hold = 2, brief })
	first := b.reserve(b.ask("ann", 1))
	b.reserve(b.ask("bob", 1))
	b.refused(b.ask("cay", 1), stock.ErrAllHeld)
	b.Pass(t, brief)
	b.reserve(b.ask("cay", 2))
	b.levels(0, 2, 0)
	b.want(b.store.Lookup, first.ID, stock.Expired, nil)
}

func expiredAllowance(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Limit, p.Hold = 1, brief })
	r := b.ask("ann", 1)
	b.reserve(r)
	b.Pass(t, brief)
	b.reserve(b.ask("ann", 1))
	b.levels(9, 1, 0)
	if again := b.reserve(r); again.State != stock.Expired || !again.Repeated {
		t.Fatalf("the expired ID: %+v", again)
	}
}

func states(t *testing.T, h Harness) {
	b := h.open(t, nil)
	sold, cancelled, held := b.reserve(b.ask("ann", 1)).ID, b.reserve(b.ask("bob", 1)).ID, b.reserve(b.ask("cay", 1)).ID
	b.want(whole(b.store.Confirm), sold, stock.Sold, nil)
	if again := b.want(whole(b.store.Confirm), sold, stock.Sold, nil); !again.Repeated {
		t.Error("a second confirmation is not told as a repeat")
	}
	b.want(b.store.Cancel, sold, 0, stock.ErrConfirmed)
	b.want(b.store.Cancel, cancelled, stock.Cancelled, nil)
	b.want(b.store.Cancel, cancelled, stock.Cancelled, nil)
	b.want(whole(b.store.Confirm), cancelled, 0, stock.ErrCancelled)
	b.want(b.store.Return, cancelled, 0, stock.ErrNotConfirmed)
	b.want(b.store.Return, held, 0, stock.ErrNotConfirmed)
	b.want(b.store.Lookup, held, stock.Held, nil)
	b.levels(8, 1, 1)
}

func confirmAtExpiry(t *testing.T, h Harness) {
	if h.Ledger {
		t.Skip("with a ledger it is the ledger that decides")
	}
	b := h.open(t, func(p *stock.Pool) { p.Hold = brief })
	id := b.reserve(b.ask("ann", 1)).ID
	b.Pass(t, brief)
	for range 2 {
		b.want(whole(b.store.Confirm), id, 0, stock.ErrExpired)
	}
	b.want(b.store.Cancel, id, stock.Expired, nil)
	b.levels(10, 0, 0)
}

func returned(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Limit = 1, 1 })
	id := b.reserve(b.ask("ann", 1)).ID
	b.want(whole(b.store.Confirm), id, stock.Sold, nil)
	b.refused(b.ask("bob", 1), stock.ErrSoldOut)
	b.want(b.store.Return, id, stock.Returned, nil)
	b.want(b.store.Return, id, stock.Returned, nil)
	b.want(b.store.Cancel, id, 0, stock.ErrCancelled)
	b.levels(1, 0, 0)
	b.reserve(b.ask("ann", 1))
	b.levels(0, 1, 0)
}

func twoKindsOfNo(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Hold = 2, 10*time.Minute })
	one, two := b.reserve(b.ask("ann", 1)).ID, b.reserve(b.ask("bob", 1)).ID
	b.want(whole(b.store.Confirm), one, stock.Sold, nil)
	var held *stock.AllHeldError
	err := b.refusal(b.ask("cay", 1), stock.ErrAllHeld)
	if !errors.As(err, &held) || held.RetryAfter <= 9*time.Minute || held.RetryAfter > 10*time.Minute {
		t.Fatalf("got %v, want some 10 min", err)
	}
	b.refused(b.ask("cay", 2), stock.ErrSoldOut)
	b.want(whole(b.store.Confirm), two, stock.Sold, nil)
	b.refused(b.ask("cay", 1), stock.ErrSoldOut)
	b.levels(0, 0, 2)
}

func times(t *testing.T, h Harness) {
	now := h.Now(t)
	early := h.open(t, func(p *stock.Pool) { p.Opens = now.Add(10 * time.Minute) })
	var soon *stock.NotOpenError
	if err := early.refusal(early.ask("ann", 1), stock.ErrNotOpen); !errors.As(err, &soon) || soon.RetryAfter <= 9*time.Minute || soon.RetryAfter > 10*time.Minute {
		t.Errorf("got %v", err)
	}
	early.levels(10, 0, 0)
	over := h.open(t, func(p *stock.Pool) { p.Closes = now.Add(-time.Second) })
	over.refused(over.ask("ann", 1), stock.ErrClosed)
	over.levels(10, 0, 0)
	b := h.open(t, nil)
	late := b.ask("ann", 1)
	late.Deadline = now.Add(-time.Second)
	b.refused(late, stock.ErrTooLate)
	b.levels(10, 0, 0)
	late.Deadline = now.Add(time.Hour)
	b.reserve(late)
	late.Deadline = now.Add(-time.Second) // the known ID comes before its deadline
	b.reserve(late)
	b.levels(9, 1, 0)
}

func tooOld(t *testing.T, h Harness) {
	b := h.open(t, nil)
	old := b.ask("ann", 1)
	old.Born = h.Now(t).Add(-400 * 24 * time.Hour)
	b.refused(old, stock.ErrTooLate)
	b.levels(10, 0, 0)
}

func openTwice(t *testing.T, h Harness) {
	b := h.open(t, nil)
	b.reserve(b.ask("ann", 4))
	l, err := b.store.Open(t.Context(), b.pool)
	if err != nil || l.Free != 6 || l.Held != 4 {
		t.Fatalf("got %+v, %v", l, err)
	}
	other := b.pool
	other.Total++
	if _, err := b.store.Open(t.Context(), other); !errors.Is(err, stock.ErrPoolExists) {
		t.Fatalf("got %v", err)
	}
	b.levels(6, 4, 0)
}

func strangers(t *testing.T, h Harness) {
	b := h.open(t, nil)
	r := stock.Request{ID: stock.NewID("nothing", "ann", Claim()), SKU: "nothing", Buyer: "ann", Quantity: 1}
	b.refused(r, stock.ErrUnknownSKU)
	b.want(whole(b.store.Confirm), r.ID, 0, stock.ErrUnknownSKU)
	if _, err := b.store.Levels(t.Context(), "nothing"); !errors.Is(err, stock.ErrUnknownSKU) {
		t.Errorf("levels: %v", err)
	}
	id := b.ask("ann", 1).ID
	for _, step := range []func(context.Context, stock.ID) (stock.Hold, error){whole(b.store.Confirm), b.store.Cancel, b.store.Return, b.store.Lookup} {
		b.want(step, id, 0, stock.ErrNotFound)
	}
}

func malformed(t *testing.T, h Harness) {
	b := h.open(t, nil)
	for name, edit := range map[string]func(r *stock.Request){
		"zero":         func(r *stock.Request) { r.Quantity = 0 },
		"negative":     func(r *stock.Request) { r.Quantity = -1 },
		"too large":    func(r *stock.Request) { r.Quantity = 1 << 53 },
		"no buyer":     func(r *stock.Request) { r.Buyer = "" },
		"long buyer":   func(r *stock.Request) { r.Buyer = strings.Repeat("b", 256) },
		"control":      func(r *stock.Request) { r.Buyer = "a\x00b" },
		"not UTF-8":    func(r *stock.Request) { r.Buyer = "\xff" },
		"no SKU":       func(r *stock.Request) { r.SKU = "" },
		"claimless ID": func(r *stock.Request) { r.ID = stock.NewID(r.SKU, r.Buyer, [16]byte{}) },
	} {
		r := b.ask("ann", 1)
		edit(&r)
		if name != "claimless ID" && r.SKU != "" && r.Buyer != "" {
			r.ID = stock.NewID(r.SKU, r.Buyer, Claim())
		}
		if hold, err := b.store.Reserve(t.Context(), r); !errors.Is(err, stock.ErrInvalid) {
			t.Errorf("%s: got %+v, %v", name, hold, err)
		}
	}
	b.want(whole(b.store.Confirm), stock.ID{}, 0, stock.ErrInvalid)
	for _, p := range []stock.Pool{{}, {SKU: "x"}, {SKU: "x", Total: -1}, {SKU: "x", Total: 1 << 53}, {SKU: "x", Total: 1, Limit: -1}, {SKU: "x", Total: 1, Hold: -1}} {
		if _, err := b.store.Open(t.Context(), p); !errors.Is(err, stock.ErrInvalid) {
			t.Errorf("open %+v: %v", p, err)
		}
	}
	b.levels(10, 0, 0)
}

func sameBuyerBatch(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Limit = 1000, 3 })
	var wins atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			switch _, err := b.store.Reserve(t.Context(), b.ask("ann", 1)); {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, stock.ErrLimit):
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 3 {
		t.Fatalf("%d holds at limit 3", wins.Load())
	}
	b.levels(997, 3, 0)
}

func sameIDAtOnce(t *testing.T, h Harness) {
	b := h.open(t, nil)
	r := b.ask("ann", 1)
	var fresh atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			hold, err := b.store.Reserve(t.Context(), r)
			if err != nil {
				t.Errorf("got %v", err)
			}
			if !hold.Repeated {
				fresh.Add(1)
			}
		})
	}
	wg.Wait()
	if fresh.Load() != 1 {
		t.Errorf("%d calls made the hold", fresh.Load())
	}
	b.levels(9, 1, 0)
}

func memoryAnswers(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Total = 1 })
	winner := b.ask("ann", 1)
	b.reserve(winner)
	first := b.ask("bob", 1)
	first.First = true
	b.refused(first, stock.ErrAllHeld)
	// A retry of the winner comes in the same moment: it must be asked.
	if again := b.reserve(winner); !again.Repeated {
		t.Fatalf("got %+v", again)
	}
	// A unit that this process gives back is for sale at once.
	b.want(b.store.Cancel, winner.ID, stock.Cancelled, nil)
	b.reserve(first)
}

func largest(t *testing.T, h Harness) {
	b := h.open(t, func(p *stock.Pool) { p.Total = stock.MaxQuantity })
	id := b.reserve(b.ask("ann", stock.MaxQuantity-1)).ID
	b.levels(1, stock.MaxQuantity-1, 0)
	b.want(whole(b.store.Confirm), id, stock.Sold, nil)
	b.reserve(b.ask("bob", 1))
	b.levels(0, 1, stock.MaxQuantity-1)
	b.refused(b.ask("cay", 1), stock.ErrAllHeld)
}

func manyEnd(t *testing.T, h Harness) {
	const n = 2000
	b := h.open(t, func(p *stock.Pool) { p.Total, p.Hold = n, 2*time.Second })
	var wg sync.WaitGroup
	var wins atomic.Int64
	wave := func(want error) {
		for range n {
			wg.Go(func() {
				r := b.ask("buyer-"+rand.Text(), 1)
				_, err := b.store.Reserve(t.Context(), r)
				for h.Ledger && err != nil && errors.Is(err, want) && pause(t) {
					// Some are still before the ledger: that is no final no.
					_, err = b.store.Reserve(t.Context(), r)
				}
				if err == nil {
					wins.Add(1)
				} else if !errors.Is(err, want) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
	}
	wave(nil)
	b.Pass(t, 2*time.Second)
	wins.Store(0)
	wave(stock.ErrAllHeld)
	if wins.Load() != n {
		t.Fatalf("%d of %d units were taken over", wins.Load(), n)
	}
	l, err := b.store.Levels(t.Context(), b.pool.SKU)
	if err != nil || l.Free+l.Held+l.Sold != n {
		t.Fatalf("levels %+v, %v", l, err)
	}
}

// pause waits for a moment; false where the test has ended.
func pause(t *testing.T) bool {
	select {
	case <-time.After(20 * time.Millisecond):
		return true
	case <-t.Context().Done():
		return false
	}
}
