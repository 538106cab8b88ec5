package outbox

import (
	"math"
	"time"
)

// pass is a reader that goes from start up to the lane's cursor.
type pass struct{ start, pos int64 }

// mark says where the cursor stood at a moment.
type mark struct {
	at     time.Time
	cursor int64
}

// sweepLevels look for rows that a transaction committed late, after the cursor
// had passed their seq: the further back, the rarer. A sequence is handed out
// before its commit, so a transaction open for less than back is found by that
// level; the last begins at zero and finds all. Between transaction's end and
// its messages' departure lie at most PollInterval and every.
var sweepLevels = [...]struct{ every, back time.Duration }{
	{200 * time.Millisecond, 5 * time.Second},
	{5 * time.Second, time.Minute},
	{time.Minute, 10 * time.Minute},
	{5 * time.Minute, math.MaxInt64},
}

// markEvery is the grain of a lane's history, and historyMarks reach further
// back than the last level but one.
const (
	markEvery    = time.Second
	historyMarks = 620
)

// note records the cursor, at a moment when all seqs up to it had been read: a
// seq handed out later is greater.
func (la *lane) note(now time.Time) {
	if n := len(la.history); n > 0 && (now.Sub(la.history[n-1].at) < markEvery || la.history[n-1].cursor == la.cursor) {
		return
	}
	if len(la.history) == historyMarks {
		la.history = append(la.history[:0], la.history[historyMarks/4:]...)
	}
	la.history = append(la.history, mark{now, la.cursor})
}

// cursorAt is where the cursor stood at a moment, at the latest mark before it.
func (la *lane) cursorAt(t time.Time) int64 {
	for i := len(la.history) - 1; i >= 0; i-- {
		if !la.history[i].at.After(t) {
			return la.history[i].cursor
		}
	}
	return 0
}

// startSweep begins a sweep from the furthest level that is due. A level waits
// its time once before it runs first: the lane was read from zero just now. While
// there is a backlog the nearest level is left out: it would read what is in
// memory over and over, and the next one is never far.
func (la *lane) startSweep(now time.Time) {
	if la.sweep != nil {
		return
	}
	start := int64(math.MaxInt64)
	for i, level := range sweepLevels {
		switch {
		case la.levels[i].IsZero():
			la.levels[i] = now.Add(level.every)
		case i == 0 && la.more:
		case !now.Before(la.levels[i]):
			la.levels[i] = now.Add(level.every)
			from := int64(0)
			if level.back != math.MaxInt64 {
				from = la.cursorAt(now.Add(-level.back))
			}
			start = min(start, from)
		}
	}
	if start < la.cursor {
		la.sweep = &pass{start: start, pos: start}
	}
}

// startCatchUp begins a pass for the keys that are behind and have room.
func (l *loop) startCatchUp(la *lane) {
	if la.catchUp != nil {
		return
	}
	start := int64(math.MaxInt64)
	for k := range la.lagging {
		if k.behind > la.cursor { // the forward reader will come to it
			l.caughtUp(k)
		} else if k.wantsRows() {
			start = min(start, k.behind-1)
		}
	}
	if start < la.cursor {
		la.catchUp = &pass{start: start, pos: start}
	}
}

// wantsBack reports whether there is a key to fetch rows for that the cursor
// has passed.
func (la *lane) wantsBack() bool {
	for k := range la.lagging {
		if la.catchUp == nil && (k.wantsRows() || k.recalls()) {
			return true
		}
		if la.catchUp != nil && la.serves(k) && k.hasRoom() {
			return true
		}
	}
	return false
}

// serves reports whether the running pass may give rows to a key.
func (la *lane) serves(k *key) bool {
	return la.catchUp != nil && k.missed != la.catchUp && la.catchUp.start < k.behind
}

// endCatchUp ends a pass that has reached the cursor: whom it served to the end
// is behind no more.
func (l *loop) endCatchUp(la *lane) {
	for k := range la.lagging {
		if la.serves(k) {
			if len(k.queue) == 0 {
				k.tries, k.attempts = 0, 0 // the refused message is gone
			}
			l.caughtUp(k)
		}
	}
	la.catchUp = nil
}
