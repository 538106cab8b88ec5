package journal

// place names an event by the entry that it stands in and its number there. Epoch
// and seq do not: after a loss that nobody noticed another event may have the same.
type place struct {
	position string
	n        int
}

// mark is how far a pool's history had come.
type mark struct{ epoch, seq int64 }

func markOf(e *Event) mark { return mark{epoch: e.Epoch, seq: e.Seq} }

// behind reports whether m stands before or at n.
func (m mark) behind(n mark) bool { return m.epoch < n.epoch || m.epoch == n.epoch && m.seq <= n.seq }

// page is what one look into a journal brought.
type page struct {
	entries []Entry
	items   []*item // the events, in order
	bad     *refusalError
}

// item is one event of a page.
type item struct {
	event *Event
	entry int // the number of its entry among those of the page
	place place
	acked bool
}

// open makes a page of what was read. What was acknowledged in an earlier round,
// and could not be trimmed, is not sent again.
func (p *pool) open(entries []Entry) *page {
	g := &page{entries: entries}
	var before *Event
	for i := range entries {
		for j := range entries[i].Events {
			e := &entries[i].Events[j]
			if g.bad == nil {
				if err := e.check(p.name); err != nil {
					g.bad = &refusalError{event: e, err: err}
					p.tel.refused(faultMessage)
				}
			}
			p.compare(before, e)
			at := place{entries[i].Position, j}
			g.items = append(g.items, &item{event: e, entry: i, place: at, acked: p.acked[at]})
			before = e
		}
	}
	return g
}

// compare looks for what should not be: it can't be mended here, but it is said.
func (p *pool) compare(before, e *Event) {
	switch {
	case before == nil && p.trimmed.seq > 0 && markOf(e).behind(p.trimmed):
		p.log.Warn("the journal went back: its server has lost writes, a trim at the least",
			"epoch", e.Epoch, "seq", e.Seq, "trimmed_epoch", p.trimmed.epoch, "trimmed_seq", p.trimmed.seq)
		p.trimmed = mark{}
	case before != nil && e.Epoch == before.Epoch && e.Seq != before.Seq+1:
		p.tel.gap(max(1, e.Seq-before.Seq-1))
		p.log.Error("the journal has a gap: does a process write to the pool with its journal off?",
			"epoch", e.Epoch, "seq", before.Seq, "next_seq", e.Seq)
	}
}

// left is what is still to be sent, in order, up to an event that must not be.
func (g *page) left() []*item {
	var left []*item
	for _, it := range g.items {
		if g.bad != nil && it.event == g.bad.event {
			break
		}
		if !it.acked {
			left = append(left, it)
		}
	}
	return left
}

// whole is how many entries from the front on are acknowledged to their last
// event.
func (g *page) whole() int {
	for _, it := range g.items {
		if !it.acked {
			return it.entry
		}
	}
	return len(g.entries)
}

// positions names the first n entries.
func (g *page) positions(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = g.entries[i].Position
	}
	return list
}

// last is the last event of the first n entries.
func (g *page) last(n int) (last mark, ok bool) {
	for _, it := range g.items {
		if it.entry < n {
			last, ok = markOf(it.event), true
		}
	}
	return last, ok
}

// acked is what was acknowledged in the entries from n on.
func (g *page) acked(n int) map[place]bool {
	acked := map[place]bool{}
	for _, it := range g.items {
		if it.acked && it.entry >= n {
			acked[it.place] = true
		}
	}
	return acked
}
