package outboxtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/firstcome/firstcome/outbox"
)

var (
	_ outbox.Store    = (*Memory)(nil)
	_ outbox.Operator = (*Memory)(nil)
)

// Memory is an [outbox.Store] in memory: for tests, also inside a synctest
// bubble, whose clock it follows. Nothing outlives the process.
type Memory struct {
	mu      sync.Mutex
	seq     int64
	parked  []memoryParked
	lanes   [outbox.Lanes]memoryLane
	relays  map[string]time.Time
	dropped int64
	fail    error
}

type memoryRow struct {
	outbox.Row
	written time.Time
}

type memoryParked struct {
	memoryRow
	held     bool
	attempts int
	reason   string
	at       time.Time
}

type memoryLane struct {
	owner          string
	epoch, rewinds int64
	until          time.Time
	relayed        int64
	rows           []memoryRow // by rising seq
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{relays: map[string]time.Time{}} }

// Fail makes every call return err until it is called with nil.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// MemoryTx is an open transaction: its messages have their place in the order
// and cannot be seen.
type MemoryTx struct {
	m    *Memory
	rows []memoryRow
}

// Begin opens a transaction.
func (m *Memory) Begin() *MemoryTx { return &MemoryTx{m: m} }

// Add validates messages and gives them their places.
func (tx *MemoryTx) Add(_ context.Context, msgs ...outbox.Message) error {
	for _, msg := range msgs {
		if err := msg.Validate(); err != nil {
			return err
		}
	}
	tx.m.mu.Lock()
	defer tx.m.mu.Unlock()
	for _, msg := range msgs {
		tx.m.seq++
		tx.rows = append(tx.rows, memoryRow{written: time.Now(), Row: outbox.Row{
			Lane: outbox.LaneOf(msg.Topic, msg.Key), Seq: tx.m.seq, Format: outbox.StoredFormat, Message: msg,
		}})
	}
	return nil
}

// Commit makes the messages visible.
func (tx *MemoryTx) Commit() error {
	tx.m.mu.Lock()
	defer tx.m.mu.Unlock()
	tx.m.insert(tx.rows...)
	tx.rows = nil
	return nil
}

// Rollback forgets them; their places stay empty.
func (tx *MemoryTx) Rollback() error {
	tx.rows = nil
	return nil
}

// Add is a transaction with these messages alone.
func (m *Memory) Add(ctx context.Context, msgs ...outbox.Message) error {
	tx := m.Begin()
	if err := tx.Add(ctx, msgs...); err != nil {
		return err
	}
	return tx.Commit()
}

func (m *Memory) insert(rows ...memoryRow) {
	for _, r := range rows {
		la := &m.lanes[r.Lane]
		la.rows = slices.Insert(la.rows, la.find(r.Seq), r)
	}
}

// find is where a seq stands, or would.
func (la *memoryLane) find(seq int64) int {
	i, _ := slices.BinarySearchFunc(la.rows, seq, func(r memoryRow, seq int64) int { return int(r.Seq - seq) })
	return i
}

// Lease implements [outbox.Store].
func (m *Memory) Lease(_ context.Context, req outbox.LeaseRequest) (outbox.Leases, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return outbox.Leases{}, m.fail
	}
	now := time.Now()
	m.relays[req.Relay] = now.Add(req.TTL)
	alive := 0
	for _, until := range m.relays {
		if until.After(now) {
			alive++
		}
	}
	for _, n := range req.Release {
		if m.lanes[n].owner == req.Relay {
			m.lanes[n].owner = ""
		}
	}
	owned := 0
	for n := range m.lanes {
		if m.lanes[n].owner == req.Relay {
			m.lanes[n].until = now.Add(req.TTL)
			owned++
		}
	}
	out := outbox.Leases{Relays: alive}
	for n := range m.lanes {
		la := &m.lanes[n]
		if owned < outbox.Share(alive) && (la.owner == "" || !la.until.After(now)) {
			la.owner, la.until = req.Relay, now.Add(req.TTL)
			la.epoch++
			owned++
		}
		if la.owner == req.Relay {
			out.Lanes = append(out.Lanes, outbox.Lease{Lane: n, Epoch: la.epoch, Rewinds: la.rewinds})
		}
	}
	return out, nil
}

// Leave implements [outbox.Store].
func (m *Memory) Leave(_ context.Context, relay string, keep []int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	delete(m.relays, relay)
	for n := range m.lanes {
		if m.lanes[n].owner == relay && !slices.Contains(keep, n) {
			m.lanes[n].owner = ""
		}
	}
	return nil
}

// Read implements [outbox.Store].
func (m *Memory) Read(_ context.Context, req outbox.ReadRequest) ([]outbox.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	pages := make([]outbox.Page, len(req.Windows))
	size := 0
	for i, w := range req.Windows {
		p, la := &pages[i], &m.lanes[w.Lane]
		p.Lane, p.Rewinds = w.Lane, la.rewinds
		for _, r := range la.rows[la.find(w.After+1):] {
			if r.Seq > w.Until {
				break
			}
			if len(p.Rows) == w.Limit || size > 0 && size >= req.MaxBytes {
				p.More = true
				break
			}
			row := r.Row
			row.Age, row.Held = time.Since(r.written), m.behind(r.Row)
			p.Rows = append(p.Rows, row)
			size += len(row.Payload)
		}
	}
	return pages, nil
}

// behind reports whether an earlier message of the key is parked.
func (m *Memory) behind(r outbox.Row) bool {
	return slices.ContainsFunc(m.parked, func(p memoryParked) bool {
		return p.Topic == r.Topic && p.Key == r.Key && p.Seq < r.Seq
	})
}

// Settle implements [outbox.Store].
func (m *Memory) Settle(_ context.Context, relay string, receipts []outbox.Receipt) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return 0, m.fail
	}
	settled := 0
	for _, rc := range receipts {
		la := &m.lanes[rc.Lane]
		if la.owner != relay || la.epoch != rc.Epoch {
			continue
		}
		if i := la.find(rc.Seq); i < len(la.rows) && la.rows[i].Seq == rc.Seq && la.rows[i].ID == rc.ID {
			if i == 0 {
				la.rows = la.rows[1:] // moves nothing
			} else {
				la.rows = slices.Delete(la.rows, i, i+1)
			}
			la.relayed++
			settled++
		}
	}
	return settled, nil
}

// Park implements [outbox.Store].
func (m *Memory) Park(_ context.Context, relay string, p outbox.Parking) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return 0, m.fail
	}
	la := &m.lanes[p.Lane]
	if la.owner != relay || la.epoch != p.Epoch || la.rewinds != p.Rewinds {
		return 0, outbox.ErrFenced
	}
	moved := 0
	la.rows = slices.DeleteFunc(la.rows, func(r memoryRow) bool {
		if !slices.Contains(p.Seqs, r.Seq) || p.Held && !m.behind(r.Row) {
			return false
		}
		m.parked = append(m.parked, memoryParked{memoryRow: r, held: p.Held, attempts: p.Attempts, reason: p.Reason, at: time.Now()})
		moved++
		return true
	})
	slices.SortFunc(m.parked, func(a, b memoryParked) int { return int(a.Seq - b.Seq) })
	return moved, nil
}

// Stats implements [outbox.Store].
func (m *Memory) Stats(context.Context) (outbox.Stats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return outbox.Stats{}, m.fail
	}
	now := time.Now()
	s := outbox.Stats{Dropped: m.dropped}
	for _, p := range m.parked {
		if p.held {
			s.Held++
		} else {
			s.Parked++
		}
	}
	for _, la := range m.lanes {
		s.Pending += int64(len(la.rows))
		for _, r := range la.rows {
			s.Oldest = max(s.Oldest, now.Sub(r.written))
		}
		s.Relayed += la.relayed
		if la.owner != "" && la.until.After(now) {
			s.Owned++
		}
	}
	for _, until := range m.relays {
		if until.After(now) {
			s.Relays++
		}
	}
	return s, nil
}

// Parked implements [outbox.Operator].
func (m *Memory) Parked(_ context.Context, after int64, limit int) ([]outbox.ParkedMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if limit <= 0 {
		limit = 100
	}
	var out []outbox.ParkedMessage
	for _, p := range m.parked {
		if p.Seq > after && len(out) < min(limit, 1000) {
			reason := strings.ToValidUTF8(p.reason[:min(len(p.reason), 1000)], "")
			out = append(out, outbox.ParkedMessage{Seq: p.Seq, Message: p.Message, Held: p.held,
				Attempts: p.attempts, Reason: reason, Age: time.Since(p.at)})
		}
	}
	return out, nil
}

// Requeue implements [outbox.Operator].
func (m *Memory) Requeue(_ context.Context, seq int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	head, end, err := m.find(seq)
	if err != nil {
		return 0, err
	}
	if head.held {
		return 0, fmt.Errorf("%w: it waits behind another one of its key", outbox.ErrNotParked)
	}
	return m.moveBack(head, seq, end), nil
}

// Drop implements [outbox.Operator].
func (m *Memory) Drop(_ context.Context, seq int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	head, end, err := m.find(seq)
	if err != nil {
		return err
	}
	m.parked = slices.DeleteFunc(m.parked, func(p memoryParked) bool { return p.Seq == seq })
	m.dropped++
	if !head.held && !m.behind(head.Row) {
		m.moveBack(head, seq+1, end)
	}
	return nil
}

// find returns a parked message and the first seq that no longer waits for it.
func (m *Memory) find(seq int64) (head memoryParked, end int64, err error) {
	i := slices.IndexFunc(m.parked, func(p memoryParked) bool { return p.Seq == seq })
	if i < 0 {
		return head, 0, outbox.ErrNotParked
	}
	head, end = m.parked[i], m.seq+1
	for _, p := range m.parked[i+1:] {
		if p.Topic == head.Topic && p.Key == head.Key && !p.held {
			return head, p.Seq, nil
		}
	}
	return head, end, nil
}

func (m *Memory) moveBack(head memoryParked, from, end int64) int {
	moved := 0
	m.parked = slices.DeleteFunc(m.parked, func(p memoryParked) bool {
		if p.Topic != head.Topic || p.Key != head.Key || p.Seq < from || p.Seq >= end {
			return false
		}
		m.insert(p.memoryRow)
		moved++
		return true
	})
	m.lanes[head.Lane].rewinds++
	return moved
}
