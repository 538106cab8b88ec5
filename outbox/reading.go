package outbox

import (
	"context"
	"math"
	"time"
)

const (
	pageRows = 256  // of one window at most
	laneRows = 1024 // of one lane in memory, above which it is not read forward
	recalls  = 128  // refused messages fetched again in one read
	backGap  = 5 * time.Millisecond
)

// wanted is a window with the reader that asked for it.
type wanted struct {
	lane *lane
	pass *pass
	key  *key // its refused message; with neither: forward
}

// mayRead reports whether there is room for what a read would bring.
func (l *loop) mayRead() bool {
	return l.messages+Lanes <= l.opts.MaxMessages && l.bytes < l.opts.MaxBytes
}

// wantsMore reports whether a lane is known to have more than was read. What
// lies behind the cursor is fetched in one read for all who came to want it
// within backGap.
func (l *loop) wantsMore(now time.Time) bool {
	back := now.Sub(l.lastRead) >= backGap
	for _, la := range l.lanes {
		if la == nil || la.leaving || l.zombies[la.n] > 0 {
			continue
		}
		if l.goesOn(la) || back && (la.sweep != nil || la.wantsBack()) {
			return true
		}
	}
	return false
}

// goesOn reports whether the lane's forward reader has more to fetch and room.
func (l *loop) goesOn(la *lane) bool {
	return la.more && len(la.rows) < laneRows && len(l.waiting) < l.opts.MaxWaitingKeys
}

// startRead reads a page of every lane when a poll is due, beginning with another
// lane each time; between polls, of those only that want more.
func (l *loop) startRead(now time.Time) {
	poll := !now.Before(l.pollDue)
	l.lastRead = now
	if poll {
		l.pollDue = now.Add(l.pollGap)
	}
	windows, asked := l.windows(now, poll)
	if len(windows) == 0 {
		return
	}
	limit := max(1, min(pageRows, (l.opts.MaxMessages-l.messages)/len(windows)))
	for i := range windows {
		windows[i].Limit = limit // one with a single seq stops there anyway
	}
	req := ReadRequest{Windows: windows, MaxBytes: l.opts.MaxBytes - l.bytes}
	l.storeBusy = true
	l.aside(func() func() {
		ctx, cancel := context.WithTimeout(l.base, l.opts.StoreTimeout)
		defer cancel()
		pages, err := l.store.Read(ctx, req)
		return func() { l.didRead(windows, asked, pages, poll, err) }
	})
}

// windows are what the lanes want to read. Those of passes come first: what
// they find is older than what lies ahead.
func (l *loop) windows(now time.Time, poll bool) ([]Window, []wanted) {
	var (
		windows []Window
		asked   []wanted
	)
	add := func(w wanted, after, until int64) {
		windows = append(windows, Window{Lane: w.lane.n, After: after, Until: until})
		asked = append(asked, w)
	}
	recalled := 0
	for i := range Lanes {
		la := l.lanes[(l.firstLane+i)%Lanes]
		if la == nil || la.leaving || l.zombies[la.n] > 0 {
			continue
		}
		l.startCatchUp(la)
		if poll {
			la.startSweep(now)
		}
		for k := range la.lagging {
			if k.recalls() && recalled < recalls {
				add(wanted{lane: la, key: k}, k.failedSeq-1, k.failedSeq)
				recalled++
			}
		}
		if la.catchUp != nil {
			add(wanted{lane: la, pass: la.catchUp}, la.catchUp.pos, la.cursor)
		}
		if la.sweep != nil {
			add(wanted{lane: la, pass: la.sweep}, la.sweep.pos, la.cursor)
		}
		if (poll || la.more) && len(la.rows) < laneRows && len(l.waiting) < l.opts.MaxWaitingKeys {
			add(wanted{lane: la}, la.cursor, math.MaxInt64)
		}
	}
	l.firstLane = (l.firstLane + 1) % Lanes
	return windows, asked
}

// didRead takes in what a read brought.
func (l *loop) didRead(windows []Window, asked []wanted, pages []Page, poll bool, err error) {
	if !l.storeDone("read", err) {
		return
	}
	now := time.Now()
	fresh := false
	for i, page := range pages {
		la := asked[i].lane
		if l.lanes[la.n] != la || la.leaving {
			continue // lost meanwhile
		}
		if page.Rewinds != la.rewinds {
			// An operator put rows back, perhaps below the cursor: these pages
			// may show a key's later message without its earlier one.
			la.rewinds = page.Rewinds
			l.reset(la)
			continue
		}
		switch p := asked[i].pass; {
		case asked[i].key != nil:
			l.tookRecalled(asked[i].key, page, now)
		case p == nil:
			if la.cursor == windows[i].After { // else reset by a page before
				l.tookForward(la, page, now)
				fresh = fresh || len(page.Rows) > 0
			}
		case p == la.catchUp:
			l.tookCatchUp(la, page, now)
		case p == la.sweep:
			l.tookSweep(la, page, now)
		}
	}
	if fresh {
		l.pollGap = shortestPoll
	} else if poll {
		l.pollGap = min(2*l.pollGap, l.opts.PollInterval)
	}
	l.pollDue = earlier(l.pollDue, now.Add(l.pollGap))
}

func (l *loop) tookForward(la *lane, page Page, now time.Time) {
	for _, r := range page.Rows {
		la.cursor = r.Seq
		l.offer(la, r, nil, now)
	}
	la.more = page.More
	la.note(now)
}

// tookRecalled puts a refused message back at the head of its key. One that is
// not there any more leaves the key to those behind it.
func (l *loop) tookRecalled(k *key, page Page, now time.Time) {
	if k.closed || k.waits() || !k.recalls() {
		return
	}
	if len(page.Rows) == 0 {
		if !page.More {
			k.tries, k.attempts = 0, 0
			l.tidy(k)
		}
		return
	}
	row := page.Rows[0]
	if row.Held && l.opts.AfterParked == HoldKey {
		l.hold(k.lane, row, now)
	} else {
		l.enqueue(k, l.remember(k.lane, row, now))
	}
	if k.others {
		k.behind = row.Seq + 1
	} else {
		l.caughtUp(k)
	}
}

func (l *loop) tookCatchUp(la *lane, page Page, now time.Time) {
	p := la.catchUp
	for _, r := range page.Rows {
		p.pos = r.Seq
		l.offer(la, r, p, now)
	}
	if !page.More {
		l.endCatchUp(la)
	} else if !la.wantsBack() {
		la.catchUp = nil // nobody left to serve; the rest is for another pass
	}
}

func (l *loop) tookSweep(la *lane, page Page, now time.Time) {
	for _, r := range page.Rows {
		la.sweep.pos = r.Seq
		l.offer(la, r, nil, now)
	}
	if !page.More {
		la.sweep = nil
	}
}

// offer decides about a row that was read: it is taken into its key's queue, or
// left in the store and noted as missed. A row must never be taken while an
// earlier one of its key is left out.
func (l *loop) offer(la *lane, r Row, catchUp *pass, now time.Time) {
	if la.rows[r.Seq] != nil {
		return // in memory already
	}
	if r.Held && l.opts.AfterParked == HoldKey {
		l.hold(la, r, now)
		return
	}
	k := la.key(r.Topic, r.Key)
	inside := k.behind != 0 && r.Seq >= k.behind // of what the key is behind with
	switch {
	case k.waits(), !k.hasRoom():
		l.miss(k, r.Seq)
	case inside && (catchUp == nil || !la.serves(k)):
		// Left for the pass that will come to it in order.
	default:
		if inside {
			k.behind = r.Seq + 1
		}
		l.enqueue(k, l.remember(la, r, now))
	}
}
