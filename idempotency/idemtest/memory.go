// Package idemtest has the suite that every [idempotency.Store] passes, and a
// store in memory for tests. It is for tests only.
package idemtest

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/firstcome/firstcome/idempotency"
)

// Memory is an [idempotency.Store] in this process, for tests and examples: it
// forgets everything at exit and no other process sees it. Records past their
// retention are dropped when they are met.
type Memory struct {
	mu      sync.Mutex
	records map[idempotency.ClaimID]*entry
	now     func() time.Time
}

type entry struct {
	outcome idempotency.Outcome // 0: running
	past    bool                // an earlier attempt ended unknown
	attempt int
	started time.Time
	lease   time.Time
	expires time.Time
	print   idempotency.Fingerprint
	token   idempotency.Token
	result  []byte
	ended   []idempotency.Token // other than token; their claims take nothing
}

var _ idempotency.Store = (*Memory)(nil)

// NewMemory returns an empty store. It reads the time from now; nil is
// [time.Now].
func NewMemory(now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	return &Memory{records: make(map[idempotency.ClaimID]*entry), now: now}
}

// Len returns how many records there are.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.records)
}

func (m *Memory) find(id idempotency.ClaimID, now time.Time) *entry {
	e := m.records[id]
	if e != nil && !now.Before(e.expires) {
		delete(m.records, id)
		return nil
	}
	return e
}

// Claim implements [idempotency.Store].
func (m *Memory) Claim(ctx context.Context, req idempotency.ClaimRequest) (idempotency.Record, error) {
	if err := ctx.Err(); err != nil {
		return idempotency.Record{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	e := m.find(req.ID, now)
	switch {
	case e == nil && req.Look:
		return idempotency.Record{Status: idempotency.Absent}, nil
	case e == nil:
		e = &entry{}
		m.records[req.ID] = e
	default:
		if rec, refused := e.refuse(req, now); refused {
			return rec, nil
		}
		e.ended = append(e.ended, e.token)
	}
	if e.attempt == 0 {
		e.started = now
	}
	e.attempt++
	e.outcome, e.print, e.token, e.result = 0, req.Fingerprint, req.Token, nil
	e.lease = now.Add(req.Terms.Lease)
	e.expires = e.lease.Add(req.Terms.Retention)
	return idempotency.Record{Status: idempotency.Claimed, Attempt: e.attempt, Started: e.started, Lease: req.Terms.Lease}, nil
}

// refuse returns the answer to an attempt that may not take e, and prepares e
// for one that may.
func (e *entry) refuse(req idempotency.ClaimRequest, now time.Time) (idempotency.Record, bool) {
	rec := idempotency.Record{Attempt: e.attempt, Started: e.started}
	running := e.outcome == 0
	switch {
	case running && e.token == req.Token:
		rec.Status, rec.Lease = idempotency.Claimed, e.lease.Sub(now)
	case e.outcome == idempotency.OutcomeReleased && e.attempt == 0 && req.Look:
		rec.Status = idempotency.Absent
	case e.outcome != idempotency.OutcomeReleased && e.print != req.Fingerprint:
		rec.Status = idempotency.Mismatch
	case e.outcome == idempotency.OutcomeDone:
		rec.Status, rec.Result = idempotency.Done, bytes.Clone(e.result)
	case e.outcome == idempotency.OutcomeNotKept:
		rec.Status = idempotency.NotKept
	case running && now.Before(e.lease):
		rec.Status, rec.Lease = idempotency.Running, e.lease.Sub(now)
	case e.outcome != idempotency.OutcomeReleased && e.token != req.Replace && !req.Rerun:
		rec.Status, rec.Token = idempotency.Unknown, e.token
	case e.over(req.Token):
		rec.Status = idempotency.Ended
	case req.Look:
		rec.Status = idempotency.Seen
	default:
		if e.outcome != idempotency.OutcomeReleased {
			e.past = e.token != req.Replace
		}
		return rec, false
	}
	if !req.Look && rec.Status != idempotency.Claimed {
		e.end(req.Token, now.Add(req.Terms.Linger))
	}
	return rec, true
}

// over reports whether an attempt has ended, or e is its own.
func (e *entry) over(t idempotency.Token) bool { return t == e.token || slices.Contains(e.ended, t) }

// end remembers that an attempt is over, until the given time at least: its
// claim may come so late. Of a key that is done it can take nothing.
func (e *entry) end(t idempotency.Token, until time.Time) {
	if e.outcome == idempotency.OutcomeDone || e.outcome == idempotency.OutcomeNotKept || e.over(t) {
		return
	}
	e.ended = append(e.ended, t)
	if e.expires.Before(until) {
		e.expires = until
	}
}

// Extend implements [idempotency.Store].
func (m *Memory) Extend(ctx context.Context, h idempotency.Holder, t idempotency.Terms) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	e := m.find(h.ID, now)
	if e == nil {
		e = newEntry(h)
		e.past = true
		m.records[h.ID] = e
	}
	if e.token != h.Token || e.outcome != 0 {
		return idempotency.ErrStale
	}
	e.lease = now.Add(t.Lease)
	e.expires = e.lease.Add(t.Retention)
	return nil
}

// Settle implements [idempotency.Store].
func (m *Memory) Settle(ctx context.Context, h idempotency.Holder, s idempotency.Settlement) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	e := m.find(h.ID, now)
	switch {
	case e == nil:
		e = newEntry(h)
		e.past = s.Outcome != idempotency.OutcomeReleased // whether one did is lost too
		m.records[h.ID] = e
	case e.token != h.Token:
		e.end(h.Token, now.Add(s.Linger))
		return idempotency.ErrStale
	case e.outcome == s.Outcome:
		return nil
	case e.outcome != 0 && e.outcome != idempotency.OutcomeUnknown:
		return idempotency.ErrStale
	case s.Outcome == idempotency.OutcomeReleased && h.Attempt == 0 && e.outcome == 0:
		e.attempt-- // withdrawn
	}
	e.outcome, e.expires = s.Outcome, now.Add(s.Retention)
	if s.Outcome == idempotency.OutcomeReleased && e.past {
		e.outcome, e.expires = idempotency.OutcomeUnknown, now.Add(s.UnknownRetention)
	}
	e.result = bytes.Clone(s.Result)
	return nil
}

func newEntry(h idempotency.Holder) *entry {
	return &entry{attempt: h.Attempt, started: h.Started, print: h.Fingerprint, token: h.Token}
}
