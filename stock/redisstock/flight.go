package redisstock

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/stock"
)

// call is one request in a flight.
type call = coalesce.Call[ask, answer]

// manifest is the arguments of one flight, kept between flights.
type manifest struct {
	ids, details, again []byte
	buyers              map[[12]byte]struct{}
}

var manifests = sync.Pool{New: func() any { return &manifest{buyers: make(map[[12]byte]struct{}, 512)} }}

// flight asks Redis for a batch at once.
func (s *Store) flight(ctx context.Context, p *pool, batch []*call) {
	m := manifests.Get().(*manifest)
	defer manifests.Put(m)
	all, deadline, born := m.pack(batch)
	m.repeated(batch)
	left := time.Now()
	r, err := s.call(ctx, p, false, s.scripts.reserve, 2,
		s.opts.Retention.Milliseconds(), s.opts.MaxRecords, bit(p.asking.Load()), len(batch),
		m.ids, all, deadline, born, m.details, m.again)
	if err != nil {
		for _, c := range batch {
			c.Err = err
		}
		return
	}
	if unpack(batch, r, left) {
		p.gave(stock.Mark{Epoch: r.epoch, Seq: r.seq})
	}
}

// pack writes the batch as reserve.lua reads it, and returns what holds for
// all of it: the common quantity, the earliest deadline and birth.
func (m *manifest) pack(batch []*call) (all, deadline, born int64) {
	m.ids, m.details = m.ids[:0], m.details[:0]
	all = batch[0].Q.quantity
	for _, c := range batch {
		q := &c.Q
		m.ids = append(m.ids, q.id[len(stock.ID{})-28:]...)
		if q.units != nil {
			m.details = append(m.details, amountText(q.units)...)
			all = 0
		} else {
			m.details = strconv.AppendInt(m.details, q.quantity, 10)
		}
		m.details = strconv.AppendInt(append(m.details, ','), q.deadline, 10)
		m.details = strconv.AppendInt(append(m.details, ','), q.born, 10)
		m.details = append(m.details, ';')
		if q.quantity != all {
			all = 0
		}
		deadline, born = earlier(deadline, q.deadline), earlier(born, q.born)
	}
	return all, deadline, born
}

// repeated writes the places of those whose buyer stands in the batch before.
func (m *manifest) repeated(batch []*call) {
	m.again = m.again[:0]
	if len(batch) == 1 {
		return
	}
	clear(m.buyers)
	known := 0
	for i, c := range batch {
		m.buyers[c.Q.id.BuyerPart()] = struct{}{}
		if len(m.buyers) > known {
			known++
		} else {
			m.again = append(strconv.AppendInt(m.again, int64(i+1), 10), ';')
		}
	}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixMilli(), 1)
}

func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// unpack gives each call its answer, and reports whether one is a new hold.
func unpack(batch []*call, r reply, left time.Time) (gave bool) {
	expires, text := toInt(r.rest[0]), toString(r.rest[1])
	for _, c := range batch {
		if text == "" {
			c.Err = errShort
			continue
		}
		a := answer{kind: text[0], expires: expires, epoch: r.epoch, seq: r.seq, replicas: r.replicas, left: left}
		text = text[1:]
		switch a.kind {
		case 'h':
			gave = true
		case 'e', 'n', 'l', 'a', 'L', 'A', 'S':
			body, rest, _ := strings.Cut(text, ";")
			text = rest
			a.detail(body)
		}
		c.R = a
	}
	return gave
}

// detail reads what stands between an answer's letter and its semicolon.
func (a *answer) detail(body string) {
	switch {
	case a.kind == 'e' && body != "":
		a.state = body[0]
		text, at, _ := strings.Cut(body[1:], ",")
		a.amount, a.at = text, toInt(at)
	case a.kind == 'L' || a.kind == 'A' || a.kind == 'S':
		item, at, _ := strings.Cut(body, ",")
		a.item, a.at = int(toInt(item)), toInt(at)
	default:
		a.at = toInt(body)
	}
}
