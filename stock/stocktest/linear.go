package stocktest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/firstcome/firstcome/stock"
)

// History records what concurrent callers ask a store and what they hear, so
// that [History.Check] can tell whether one order of single steps explains all
// of it. It is safe for concurrent use.
//
// A call without an answer (see [stock.ErrUnknown]) may have taken effect at
// any time after it was made, also after its caller left, or never. Ask for
// few units with few buyers and IDs: a history of some hundred calls is
// checked in seconds, one of thousands never.
//
// Time does not pass in the check: no hold may end while the history lasts.
// Requests with First set are not for it, since what a process answers from
// its memory is old by a little.
type History struct {
	store stock.Store
	pool  stock.Pool
	begun time.Time

	mu  sync.Mutex
	ops []porcupine.Operation
}

// NewHistory records calls to store on the pool, which is open and untouched.
func NewHistory(store stock.Store, pool stock.Pool) *History {
	pool.Opens, pool.Closes = time.Time{}, time.Time{}
	return &History{store: store, pool: pool, begun: time.Now()}
}

// step is one call.
type step struct {
	kind    string
	id      stock.ID
	request stock.Request
	part    []stock.Line
	until   time.Time
	adjust  stock.Adjustment
}

// heard is its answer.
type heard struct {
	state   stock.State
	err     error
	unknown bool
}

// Reserve calls [stock.Store.Reserve].
func (h *History) Reserve(ctx context.Context, r stock.Request) (stock.Hold, error) {
	return h.record(step{kind: "reserve", id: r.ID, request: r}, func() (stock.Hold, error) { return h.store.Reserve(ctx, r) })
}

// Confirm calls [stock.Store.Confirm].
func (h *History) Confirm(ctx context.Context, id stock.ID, part ...stock.Line) (stock.Hold, error) {
	return h.record(step{kind: "confirm", id: id, part: part}, func() (stock.Hold, error) { return h.store.Confirm(ctx, id, part...) })
}

// Extend calls [stock.Store.Extend].
func (h *History) Extend(ctx context.Context, id stock.ID, until time.Time) (stock.Hold, error) {
	return h.record(step{kind: "extend", id: id, until: until}, func() (stock.Hold, error) { return h.store.Extend(ctx, id, until) })
}

// Adjust calls [stock.Store.Adjust].
func (h *History) Adjust(ctx context.Context, a stock.Adjustment) (levels stock.Levels, err error) {
	_, _ = h.record(step{kind: "adjust", adjust: a}, func() (stock.Hold, error) {
		levels, err = h.store.Adjust(ctx, a)
		return stock.Hold{}, err
	})
	return levels, err
}

// Cancel calls [stock.Store.Cancel].
func (h *History) Cancel(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return h.record(step{kind: "cancel", id: id}, func() (stock.Hold, error) { return h.store.Cancel(ctx, id) })
}

// Return calls [stock.Store.Return].
func (h *History) Return(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return h.record(step{kind: "return", id: id}, func() (stock.Hold, error) { return h.store.Return(ctx, id) })
}

// Lookup calls [stock.Store.Lookup].
func (h *History) Lookup(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return h.record(step{kind: "lookup", id: id}, func() (stock.Hold, error) { return h.store.Lookup(ctx, id) })
}

func (h *History) record(s step, call func() (stock.Hold, error)) (stock.Hold, error) {
	op := porcupine.Operation{Input: s, Call: int64(time.Since(h.begun))}
	hold, err := call()
	op.Return = int64(time.Since(h.begun))
	out := heard{state: hold.State, err: err, unknown: isUnknown(err)}
	if out.unknown {
		op.Return = math.MaxInt64
	}
	op.Output = out
	h.mu.Lock()
	defer h.mu.Unlock()
	if !errors.Is(err, stock.ErrBusy) { // nothing was sent, so there is nothing to explain
		h.ops = append(h.ops, op)
	}
	return hold, err
}

// isUnknown tells an error that says neither done nor not done.
func isUnknown(err error) bool {
	if err == nil {
		return false
	}
	for _, known := range []error{
		stock.ErrSoldOut, stock.ErrAllHeld, stock.ErrLimit, stock.ErrUnknownSKU, stock.ErrNotFound, stock.ErrMismatch,
		stock.ErrTooLate, stock.ErrNotOpen, stock.ErrClosed, stock.ErrConfirmed, stock.ErrCancelled, stock.ErrExpired,
		stock.ErrNotConfirmed, stock.ErrInvalid, stock.ErrTooManyAttempts, stock.ErrJournalFull, stock.ErrFenced,
		stock.ErrPaused, stock.ErrLate, stock.ErrVersion, stock.ErrOver, stock.ErrRetired,
	} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}

// Check fails t if no order of single steps explains the history. It gives up,
// which is no failure, after the given time.
func (h *History) Check(t testing.TB, patience time.Duration) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	unknown := 0
	for _, op := range h.ops {
		if op.Output.(heard).unknown {
			unknown++
		}
	}
	switch porcupine.CheckOperationsTimeout(h.model(), h.ops, patience) {
	case porcupine.Illegal:
		t.Errorf("no order of single steps explains these %d calls:", len(h.ops))
		for _, op := range h.ops {
			t.Logf("%12v to %12v: %s", time.Duration(op.Call), time.Duration(op.Return), describe(op.Input, op.Output))
		}
	case porcupine.Unknown:
		t.Logf("gave up on a history of %d calls, %d of them unknown, after %v", len(h.ops), unknown, patience)
	default:
		t.Logf("%d calls are explained, %d of them had no answer", len(h.ops), unknown)
	}
}

// model is [Model] in the form that porcupine asks for.
func (h *History) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return NewModel(h.pool, time.Unix(1, 0)) },
		Step: func(state, input, output any) (bool, any) {
			next := state.(*Model).clone()
			got, err := next.take(input.(step))
			want := output.(heard)
			return want.unknown || agree(got, err, want), next
		},
		Equal:             func(a, b any) bool { return a.(*Model).equal(b.(*Model)) },
		DescribeOperation: describe,
	}
}

func describe(input, output any) string {
	s, out := input.(step), output.(heard)
	if out.unknown {
		return fmt.Sprintf("%s %.8s… of %d: no answer", s.kind, s.id.String()[30:], s.request.Quantity)
	}
	return fmt.Sprintf("%s %.8s… of %d: %v, %v", s.kind, s.id.String()[30:], s.request.Quantity, out.state, out.err)
}

// take does one step.
func (m *Model) take(s step) (stock.State, error) {
	switch s.kind {
	case "reserve":
		return m.Reserve(s.request)
	case "confirm":
		return m.Confirm(s.id, s.part...)
	case "extend":
		return m.Extend(s.id, s.until)
	case "adjust":
		return 0, m.Adjust(s.adjust)
	case "cancel":
		return m.Cancel(s.id)
	case "return":
		return m.Return(s.id)
	default:
		return m.Lookup(s.id)
	}
}

// agree compares what the model says with what was heard, but for times.
func agree(state stock.State, err error, out heard) bool {
	if (err == nil) != (out.err == nil) {
		return false
	}
	if err == nil {
		return state == out.state
	}
	var a, b *stock.AllHeldError
	if errors.As(err, &a) && errors.As(out.err, &b) {
		return sameItem(err, out.err)
	}
	return sameError(out.err, err)
}

func (m *Model) clone() *Model {
	return &Model{Terms: m.Terms, Now: m.Now, records: maps.Clone(m.records)}
}

func (m *Model) equal(other *Model) bool {
	return m.Terms.Version == other.Terms.Version && m.Terms.Adjusted == other.Terms.Adjusted &&
		maps.EqualFunc(m.records, other.records, func(a, b record) bool {
			return a.state == b.state && a.late == b.late && a.expires.Equal(b.expires) &&
				slices.Equal(a.asked, b.asked) && slices.Equal(a.units(), b.units())
		})
}
