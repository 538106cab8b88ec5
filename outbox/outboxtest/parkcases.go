package outboxtest

import (
	"errors"
	"strings"
	"testing"

	"github.com/firstcome/firstcome/outbox"
)

func parking(l outbox.Lease, rows ...outbox.Row) outbox.Parking {
	p := outbox.Parking{Lane: rows[0].Lane, Epoch: l.Epoch}
	for _, r := range rows {
		p.Seqs = append(p.Seqs, r.Seq)
	}
	return p
}

func park(t testing.TB, s Subject, lanes map[int]outbox.Lease, relay string, row outbox.Row) {
	t.Helper()
	p := parking(lanes[row.Lane], row)
	p.Rewinds, p.Attempts, p.Reason = rewinds(t, s, row.Lane), 3, "refused"
	n, err := s.Store.Park(t.Context(), relay, p)
	must(t, err)
	same(t, "parked", n, 1)
}

func hold(t testing.TB, s Subject, lanes map[int]outbox.Lease, relay string, rows ...outbox.Row) int {
	t.Helper()
	p := parking(lanes[rows[0].Lane], rows...)
	p.Rewinds, p.Held = rewinds(t, s, rows[0].Lane), true
	n, err := s.Store.Park(t.Context(), relay, p)
	must(t, err)
	return n
}

func parked(t testing.TB, s Subject) []string {
	t.Helper()
	list, err := s.Store.Parked(t.Context(), 0, 0)
	must(t, err)
	out := []string{}
	for _, p := range list {
		state := " parked"
		if p.Held {
			state = " held"
		}
		out = append(out, p.Message.ID+state)
	}
	return out
}

func parkMoves(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	m := Msg("k", 1)
	m.Headers = map[string]string{"kind": "test"}
	write(t, s, m, Msg("k", 2))
	p := parking(lanes[outbox.LaneOf("orders", "k")], all(t, s)[0])
	p.Attempts, p.Reason = 7, strings.Repeat("☠", 999)+"\x00\xff"
	n, err := s.Store.Park(t.Context(), "a", p)
	must(t, err)
	same(t, "moved", n, 1)
	same(t, "queue", ids(all(t, s)), []string{"k/2"})
	same(t, "held", all(t, s)[0].Held, true)
	list, err := s.Store.Parked(t.Context(), 0, 10)
	must(t, err)
	same(t, "list", len(list), 1)
	got := list[0]
	same(t, "message", got.Message, m)
	same(t, "attempts", got.Attempts, 7)
	if len(got.Reason) > 1000 || !strings.HasPrefix(got.Reason, "☠☠☠") {
		t.Fatalf("reason %q", got.Reason)
	}
	after, err := s.Store.Parked(t.Context(), got.Seq, 10)
	must(t, err)
	same(t, "after the last", len(after), 0)
	n, err = s.Store.Park(t.Context(), "a", p)
	must(t, err)
	same(t, "a second time", n, 0)
}

func parkFenced(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	write(t, s, Msg("k", 1))
	p := parking(lanes[outbox.LaneOf("orders", "k")], all(t, s)[0])
	for name, spoil := range map[string]func(*outbox.Parking) string{
		"other owner":   func(*outbox.Parking) string { return "b" },
		"older epoch":   func(p *outbox.Parking) string { p.Epoch--; return "a" },
		"other rewinds": func(p *outbox.Parking) string { p.Rewinds++; return "a" },
	} {
		q := p
		relay := spoil(&q)
		if _, err := s.Store.Park(t.Context(), relay, q); !errors.Is(err, outbox.ErrFenced) {
			t.Errorf("%s: got %v, want ErrFenced", name, err)
		}
	}
	same(t, "left", ids(all(t, s)), []string{"k/1"})
	same(t, "parked", parked(t, s), []string{})
}

func parkHolds(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	for i := range 4 {
		write(t, s, Msg("k", i))
	}
	rows := all(t, s)
	same(t, "held without a parked one", hold(t, s, lanes, "a", rows...), 0)
	park(t, s, lanes, "a", rows[1])
	same(t, "held", hold(t, s, lanes, "a", rows[0], rows[2], rows[3]), 2)
	same(t, "queue", ids(all(t, s)), []string{"k/0"})
	same(t, "parked", parked(t, s), []string{"k/1 parked", "k/2 held", "k/3 held"})
}

func requeueOrder(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	for i := range 5 {
		write(t, s, Msg("k", i))
	}
	rows := all(t, s)
	park(t, s, lanes, "a", rows[0])
	hold(t, s, lanes, "a", rows[1], rows[2])
	before := rewinds(t, s, rows[0].Lane)
	n, err := s.Store.Requeue(t.Context(), rows[0].Seq)
	must(t, err)
	same(t, "requeued", n, 3)
	same(t, "queue", ids(all(t, s)), []string{"k/0", "k/1", "k/2", "k/3", "k/4"})
	for i, r := range all(t, s) {
		same(t, "seq", r.Seq, rows[i].Seq)
		same(t, "held", r.Held, false)
	}
	if rewinds(t, s, rows[0].Lane) <= before {
		t.Fatal("the relay is not told")
	}
	if _, err := s.Store.Requeue(t.Context(), rows[0].Seq); !errors.Is(err, outbox.ErrNotParked) {
		t.Fatalf("again: %v", err)
	}
}

func dropGoesOn(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	for i := range 4 {
		write(t, s, Msg("k", i))
	}
	rows := all(t, s)
	park(t, s, lanes, "a", rows[0])
	hold(t, s, lanes, "a", rows[1], rows[2])
	if _, err := s.Store.Requeue(t.Context(), rows[1].Seq); !errors.Is(err, outbox.ErrNotParked) {
		t.Fatalf("a held one alone: %v", err)
	}
	must(t, s.Store.Drop(t.Context(), rows[0].Seq))
	same(t, "queue", ids(all(t, s)), []string{"k/1", "k/2", "k/3"})
	same(t, "parked", parked(t, s), []string{})
	if err := s.Store.Drop(t.Context(), rows[0].Seq); !errors.Is(err, outbox.ErrNotParked) {
		t.Fatalf("again: %v", err)
	}
}
