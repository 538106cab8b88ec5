package outbox

import "time"

// lane is what a relay knows of a lane that it owns.
//
// Reading goes forward from cursor. All rows up to it that were visible when it
// passed are either in rows, or belong to a key that waits (key.behind tells
// from where on), or are gone. Two more readers run up to the cursor: catchUp
// for keys that wait no more, sweep for rows that were committed late.
type lane struct {
	n       int
	epoch   int64
	rewinds int64
	leaving bool // to be given back as soon as nothing is open

	cursor  int64
	more    bool // the last page forward was full
	catchUp *pass
	sweep   *pass
	levels  [len(sweepLevels)]time.Time // when each level is due
	history []mark

	keys    map[keyID]*key
	lagging map[*key]bool // behind, and ready to go on
	rows    map[int64]*row
	open    int // messages with the publisher
	unsaved int // rows acknowledged or to be moved, not yet so in the store
}

// row is a message in memory, until the store holds it no more.
type row struct {
	Row
	size   int
	readAt time.Time
}

func newLane(lease Lease) *lane {
	return &lane{
		n: lease.Lane, epoch: lease.Epoch, rewinds: lease.Rewinds,
		keys: map[keyID]*key{}, lagging: map[*key]bool{}, rows: map[int64]*row{},
	}
}

// remember takes a row into memory.
func (l *loop) remember(la *lane, r Row, now time.Time) *row {
	kept := &row{Row: r, size: len(r.Payload), readAt: now}
	la.rows[r.Seq] = kept
	l.messages++
	l.bytes += kept.size
	return kept
}

// forget lets a row go: it is deleted, or will be read again.
func (l *loop) forget(la *lane, seq int64) {
	if r := la.rows[seq]; r != nil {
		l.free(r)
		delete(la.rows, seq)
		l.messages--
	}
}

// free gives back a row's payload while the row itself is still known.
func (l *loop) free(r *row) {
	l.bytes -= r.size
	r.size, r.Payload, r.Headers = 0, nil, nil
}

// reset makes the lane read again from its beginning. What is in memory stays
// and is recognised; who was behind is met again on the way.
func (l *loop) reset(la *lane) {
	if la == nil {
		return
	}
	la.cursor, la.more, la.catchUp, la.sweep, la.history = 0, true, nil, nil, nil
	for _, k := range la.keys {
		l.caughtUp(k)
	}
}

// closeLane forgets a lane that is no longer ours. Calls to the publisher
// that are still open become zombies: should the lane come back, it rests
// until they have ended.
func (l *loop) closeLane(n int) {
	la := l.lanes[n]
	if la == nil {
		return
	}
	for seq := range la.rows {
		l.forget(la, seq)
	}
	for _, k := range la.keys {
		k.closed = true
		delete(l.suspects, k)
	}
	l.zombies[n] += la.open
	l.lanes[n] = nil
}

// quit begins to give a lane back: nothing more is read or sent.
func (l *loop) quit(la *lane) {
	la.leaving, la.more, la.catchUp, la.sweep = true, false, nil, nil
	for _, k := range la.keys {
		l.flush(k)
	}
}

// idle reports that nothing of the lane is open.
func (la *lane) idle() bool { return la.open == 0 && la.unsaved == 0 }
