package outboxtest

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/firstcome/firstcome/outbox"
)

func messageRoundTrip(t *testing.T, h Harness) {
	s := h.New(t)
	raw := make([]byte, 256)
	for i := range raw {
		raw[i] = byte(i)
	}
	want := []outbox.Message{
		{ID: "1", Topic: "orders", Key: "k"},
		{ID: "2", Topic: "orders", Key: "k", Payload: raw, Headers: map[string]string{"naïve": "'\"\\ 표 🎫", "empty": ""}},
		{ID: strings.Repeat("ü", outbox.MaxIDBytes/2), Topic: strings.Repeat("t", outbox.MaxTopicBytes), Key: strings.Repeat("é", outbox.MaxKeyBytes/2)},
		{ID: "4", Topic: "orders", Key: "K", Payload: make([]byte, outbox.MaxPayloadBytes)},
		{ID: "5", Topic: "orders", Key: "k ", Payload: []byte("trailing blank and case make another key")},
	}
	write(t, s, want...)
	got := map[string]outbox.Row{}
	for _, r := range all(t, s) {
		got[r.ID] = r
	}
	for _, m := range want {
		r := got[m.ID]
		if r.Topic != m.Topic || r.Key != m.Key || string(r.Payload) != string(m.Payload) || len(r.Headers) != len(m.Headers) {
			t.Errorf("message %.10q came back changed", m.ID)
		}
		for name, value := range m.Headers {
			same(t, "header "+name, r.Headers[name], value)
		}
		same(t, "lane", r.Lane, outbox.LaneOf(m.Topic, m.Key))
		same(t, "format", r.Format, outbox.StoredFormat)
	}
}

func messageInvalid(t *testing.T, h Harness) {
	s := h.New(t)
	for name, spoil := range map[string]func(*outbox.Message){
		"no ID":           func(m *outbox.Message) { m.ID = "" },
		"no key":          func(m *outbox.Message) { m.Key = "" },
		"no topic":        func(m *outbox.Message) { m.Topic = "" },
		"topic with /":    func(m *outbox.Message) { m.Topic = "a/b" },
		"topic ..":        func(m *outbox.Message) { m.Topic = ".." },
		"NUL in key":      func(m *outbox.Message) { m.Key = "a\x00b" },
		"ID not UTF-8":    func(m *outbox.Message) { m.ID = "\xff" },
		"long ID":         func(m *outbox.Message) { m.ID = strings.Repeat("x", outbox.MaxIDBytes+1) },
		"long key":        func(m *outbox.Message) { m.Key = strings.Repeat("x", outbox.MaxKeyBytes+1) },
		"large payload":   func(m *outbox.Message) { m.Payload = make([]byte, outbox.MaxPayloadBytes+1) },
		"reserved header": func(m *outbox.Message) { m.Headers = map[string]string{outbox.MetadataKey: "x"} },
		"NUL in header":   func(m *outbox.Message) { m.Headers = map[string]string{"a": "\x00"} },
		"large headers": func(m *outbox.Message) {
			m.Headers = map[string]string{"a": strings.Repeat("x", outbox.MaxHeaderBytes)}
		},
	} {
		bad := Msg("k", 2)
		spoil(&bad)
		tx := s.Begin(t)
		if err := tx.Add(t.Context(), Msg("k", 1), bad); !errors.Is(err, outbox.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
		must(t, tx.Commit())
	}
	same(t, "rows", len(all(t, s)), 0)
}

func rollback(t *testing.T, h Harness) {
	s := h.New(t)
	write(t, s, Msg("k", 1))
	tx := s.Begin(t)
	must(t, tx.Add(t.Context(), Msg("k", 2)))
	must(t, tx.Rollback())
	write(t, s, Msg("k", 3))
	same(t, "rows", ids(all(t, s)), []string{"k/1", "k/3"})
}

func lateCommit(t *testing.T, h Harness) {
	if h.OneWriter {
		t.Skip("one writer at a time: nothing commits late")
	}
	s := h.New(t)
	lanes := owner(t, s, "a")
	late := s.Begin(t)
	must(t, late.Add(t.Context(), Msg("k", 1)))
	write(t, s, Msg("k", 2))
	rows := all(t, s)
	same(t, "before the commit", ids(rows), []string{"k/2"})
	same(t, "settled", settle(t, s, "a", receipt(lanes[rows[0].Lane], rows[0])), 1)
	must(t, late.Commit())
	after := all(t, s)
	same(t, "after it", ids(after), []string{"k/1"})
	if after[0].Seq >= rows[0].Seq {
		t.Fatalf("the late row has seq %d, not below %d", after[0].Seq, rows[0].Seq)
	}
}

func readPages(t *testing.T, h Harness) {
	s := h.New(t)
	for i := range 5 {
		write(t, s, Msg("k", i), Msg("other", i))
	}
	lane, other := outbox.LaneOf("orders", "k"), outbox.LaneOf("orders", "other")
	read := func(windows ...outbox.Window) []outbox.Page {
		pages, err := s.Store.Read(t.Context(), outbox.ReadRequest{Windows: windows, MaxBytes: 1 << 20})
		must(t, err)
		same(t, "pages", len(pages), len(windows))
		return pages
	}
	first := read(outbox.Window{Lane: other, Until: math.MaxInt64, Limit: 5}, outbox.Window{Lane: lane, Until: math.MaxInt64, Limit: 3})
	same(t, "lane", first[0].Lane, other)
	same(t, "rows", ids(first[0].Rows), []string{"other/0", "other/1", "other/2", "other/3", "other/4"})
	same(t, "rows", ids(first[1].Rows), []string{"k/0", "k/1", "k/2"})
	same(t, "more", first[1].More, true)
	last := first[1].Rows[2].Seq
	rest := read(outbox.Window{Lane: lane, After: last, Until: math.MaxInt64, Limit: 3}, outbox.Window{Lane: lane, Until: last, Limit: 9})
	same(t, "rows", ids(rest[0].Rows), []string{"k/3", "k/4"})
	same(t, "more", rest[0].More, false)
	same(t, "rows up to one", ids(rest[1].Rows), []string{"k/0", "k/1", "k/2"})
	if pages := read(outbox.Window{Lane: (lane + 1) % outbox.Lanes, After: last, Until: math.MaxInt64, Limit: 3}); len(pages[0].Rows) > 0 {
		t.Fatal("a window read another lane's rows")
	}
}

func readBytes(t *testing.T, h Harness) {
	s := h.New(t)
	for i := range 10 {
		m := Msg("k", i)
		m.Payload = make([]byte, 1000)
		write(t, s, m)
	}
	window := outbox.Window{Lane: outbox.LaneOf("orders", "k"), Until: math.MaxInt64, Limit: 100}
	for size, want := range map[int]int{1: 1, 1000: 1, 1001: 2, 3000: 3} {
		pages, err := s.Store.Read(t.Context(), outbox.ReadRequest{Windows: []outbox.Window{window}, MaxBytes: size})
		must(t, err)
		same(t, "rows", len(pages[0].Rows), want)
		same(t, "more", pages[0].More, true)
	}
}

func settleExact(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	for i := range 5 {
		write(t, s, Msg("k", i))
	}
	rows := all(t, s)
	l := lanes[rows[0].Lane]
	same(t, "settled", settle(t, s, "a", receipt(l, rows[0]), receipt(l, rows[4])), 2)
	same(t, "left", ids(all(t, s)), []string{"k/1", "k/2", "k/3"})
}

func settleFenced(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	write(t, s, Msg("k", 1))
	row := all(t, s)[0]
	must(t, s.Store.Leave(t.Context(), "a", nil))
	taken := owner(t, s, "b")
	same(t, "settled by the old owner", settle(t, s, "a", receipt(lanes[row.Lane], row)), 0)
	same(t, "settled at the old epoch", settle(t, s, "b", receipt(lanes[row.Lane], row)), 0)
	same(t, "settled by the new owner", settle(t, s, "b", receipt(taken[row.Lane], row)), 1)
}

func settleOtherID(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	write(t, s, Msg("k", 1))
	row := all(t, s)[0]
	other := receipt(lanes[row.Lane], row)
	other.ID = "lost in a failover, its seq handed out again"
	same(t, "settled", settle(t, s, "a", other), 0)
	same(t, "left", len(all(t, s)), 1)
}

func settleTwice(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	write(t, s, Msg("k", 1))
	row := all(t, s)[0]
	same(t, "first", settle(t, s, "a", receipt(lanes[row.Lane], row)), 1)
	same(t, "second", settle(t, s, "a", receipt(lanes[row.Lane], row)), 0)
	st, err := s.Store.Stats(t.Context())
	must(t, err)
	same(t, "relayed", st.Relayed, 1)
}

func statsAddUp(t *testing.T, h Harness) {
	s := h.New(t)
	lanes := owner(t, s, "a")
	for i := range 5 {
		write(t, s, Msg("k", i), Msg("other", i))
	}
	byID := map[string]outbox.Row{}
	for _, r := range all(t, s) {
		byID[r.ID] = r
	}
	one := byID["other/0"]
	settle(t, s, "a", receipt(lanes[one.Lane], one))
	park(t, s, lanes, "a", byID["k/0"])
	hold(t, s, lanes, "a", byID["k/1"], byID["k/2"])
	park(t, s, lanes, "a", byID["other/4"])
	must(t, s.Store.Drop(t.Context(), byID["other/4"].Seq))
	st, err := s.Store.Stats(t.Context())
	must(t, err)
	st.Oldest = 0
	same(t, "stats", st, outbox.Stats{Pending: 5, Parked: 1, Held: 2, Relayed: 1, Dropped: 1, Relays: 1, Owned: outbox.Lanes})
}
