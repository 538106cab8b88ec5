package redisstock_test

import (
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

var idGuards = []guard{
	{
		name: "the same ID is held once", script: "reserve",
		edits: []string{"local answer = known(p, sub(blob, i * 28 - 15, i * 28), a)", "local answer = nil"},
		promise: func(m *mutant) error {
			r := m.ask("ann")
			return errors.Join(m.try(r), m.try(r), m.counts(9, 1, 0))
		},
	},
	{
		name: "the same ID of another quantity is a mismatch", script: "reserve",
		edits: []string{"if ra ~= a and match(ra, '^[^-]+') ~= a then return 'q' end", ""},
		promise: func(m *mutant) error {
			r := m.ask("ann")
			err := m.try(r)
			r.Quantity = 2
			return errors.Join(err, wants(m.try(r), stock.ErrMismatch))
		},
	},
	{
		name: "a buyer twice in one batch is judged twice", script: "reserve",
		edits:   []string{"again[i], value[i + 2] = true, value[i + 2] or ''", ""},
		pool:    func(p *stock.Pool) { p.Limit = 1 },
		promise: twiceInOneBatch,
	},
	{
		name: "a buyer in one batch again is judged by what was just held", script: "reserve",
		edits:   []string{"again[i] and placeof(name[i + 2]) or i + 2", "i + 2"},
		pool:    func(p *stock.Pool) { p.Limit = 1 },
		promise: twiceInOneBatch,
	},
	{
		name: "the journal tells each of a batch its own amount", script: "reserve",
		edits: []string{"if k ~= kind or a ~= amount then", "if k ~= kind then"},
		promise: func(m *mutant) error {
			asked := make(map[stock.ID]int64)
			var batch []stock.Request
			for i, quantity := range []int64{1, 2, 2, 1, 1} {
				r := m.ask(name(i))
				r.Quantity = quantity
				batch, asked[r.ID] = append(batch, r), quantity
			}
			err := m.together(batch...)
			for _, e := range m.events() {
				if n, ok := asked[e.ID]; ok && n != e.Quantity {
					err = errors.Join(err, errorf("%d were asked for and %d told", n, e.Quantity))
				}
				delete(asked, e.ID)
			}
			if len(asked) > 0 {
				err = errors.Join(err, errorf("%d were not told", len(asked)))
			}
			return err
		},
	},
	{
		name: "the limit counts what the buyer has", script: "reserve",
		edits: []string{"if limit > 0 and taken + sum > limit then return 'l'", "if false then return 'l'"},
		pool:  func(p *stock.Pool) { p.Limit = 1 },
		promise: func(m *mutant) error {
			return errors.Join(m.try(m.ask("ann")), wants(m.try(m.ask("ann")), stock.ErrLimit))
		},
	},
	{
		name: "the limit holds for a new buyer too", script: "reserve",
		edits: []string{"(limit == 0 or all <= limit)", "true"},
		pool:  func(p *stock.Pool) { p.Limit = 1 },
		promise: func(m *mutant) error {
			r := m.ask("ann")
			r.Quantity = 2
			return wants(m.try(r), stock.ErrLimit)
		},
	},
	{
		name: "an ID names one of the buyer's reservations", script: "change",
		edits: []string{"if sub(v, pos, pos + 15) == claim then", "if true then"},
		promise: func(m *mutant) error {
			one, two := m.ask("ann"), m.ask("ann")
			err := errors.Join(m.try(one), m.try(two))
			_, cancel := m.store.Cancel(m.t.Context(), two.ID)
			return errors.Join(err, cancel, m.is(one.ID, stock.Held), m.is(two.ID, stock.Cancelled))
		},
	},
	{
		name: "one buyer's records are bounded", script: "reserve",
		edits: []string{"if ended >= most or count >= 16 * most then return 't' end", ""},
		opts:  redisstock.Options{MaxRecords: 2},
		promise: func(m *mutant) error {
			for range 2 {
				if _, err := m.store.Cancel(m.t.Context(), m.hold("ann").ID); err != nil {
					return err
				}
				m.drain()
			}
			return wants(m.try(m.ask("ann")), stock.ErrTooManyAttempts)
		},
	},
	{
		name: "one buyer's live records are bounded too", script: "reserve",
		edits: []string{"if ended >= most or count >= 16 * most then return 't' end", "if ended >= most then return 't' end"},
		opts:  redisstock.Options{MaxRecords: 1},
		pool:  func(p *stock.Pool) { p.Total = 100 },
		promise: func(m *mutant) error {
			for range 16 {
				m.hold("ann")
				m.drain()
			}
			return wants(m.try(m.ask("ann")), stock.ErrTooManyAttempts)
		},
	},
	{
		name: "a full journal refuses reservations", script: "reserve",
		edits: []string{"local jfull = jmax >= 0 and room == 0", "local jfull = false"},
		promise: func(m *mutant) error {
			return errors.Join(m.try(m.ask("a")), m.try(m.ask("b")), m.try(m.ask("c")), wants(m.try(m.ask("d")), stock.ErrJournalFull))
		},
	},
	{
		name: "a journal of a wrong type is noticed before the first write", script: "reserve",
		edits: []string{
			"    room = room - 1\n", "    room = room - 1\n    redis.call('HSET', POOL, 'm', 'changed')\n",
		},
		promise: func(m *mutant) error { return m.keepsUnits(m.keys()[2]) },
	},
	{
		name: "an index of a wrong type is noticed before the first write", script: "reserve",
		edits: []string{
			"  redis.call('ZADD', DUE, expires, member)\n", "  redis.call('HSET', POOL, 'm', 'changed')\n  redis.call('ZADD', DUE, expires, member)\n",
		},
		promise: func(m *mutant) error { return m.keepsUnits(m.keys()[1]) },
	},
}

// keepsUnits returns an error if a reservation takes a unit though a key has a
// wrong type.
func (m *mutant) keepsUnits(key string) error {
	err := m.try(m.ask("zoe"))
	before := m.client.HGet(m.t.Context(), m.keys()[0], "m").Val()
	m.client.Del(m.t.Context(), key)
	m.client.Set(m.t.Context(), key, "x", 0)
	if err := m.try(m.ask("ann")); err == nil {
		return errors.New("the reservation succeeds")
	}
	if after := m.client.HGet(m.t.Context(), m.keys()[0], "m").Val(); after != before {
		return errorf("the counts are %s, want %s", after, before)
	}
	return err
}

// twiceInOneBatch sends two requests of one buyer, at limit 1, in one script call.
func twiceInOneBatch(m *mutant) error {
	_ = m.together(m.ask("ann"), m.ask("ann"))
	return m.counts(7, 3, 0)
}

// together sends requests in one script call, in any order: they wait for a flight
// whose reply is late. Two units are held by others then.
func (m *mutant) together(batch ...stock.Request) error {
	dialer := faulty.NewDialer()
	// One connection: where there are more, others don't wait for a late flight.
	late := redis.NewClient(&redis.Options{Addr: m.clock.server.Addr(), Dialer: dialer.DialContext, PoolSize: 1})
	m.t.Cleanup(func() { _ = late.Close() })
	redisstock.Reconnect(m.store, late)
	if err := m.try(m.ask("zoe")); err != nil {
		return err
	}
	dialer.DelayReply(1, 300*time.Millisecond, isScript)
	var all sync.WaitGroup
	all.Go(func() { _ = m.try(m.ask("yan")) })
	until(m.t, "a flight is late", func() bool { return redisstock.Flying(m.store, m.pool.SKU) })
	errs := make([]error, len(batch))
	for i, r := range batch {
		all.Go(func() { errs[i] = m.try(r) })
	}
	until(m.t, "they wait", func() bool { return redisstock.Waiting(m.store, m.pool.SKU) == len(batch) })
	all.Wait()
	return errors.Join(errs...)
}

var timeGuards = []guard{
	{
		name: "a known ID comes before its deadline", script: "reserve",
		edits: []string{
			"  if value[p] then\n    local answer", "  if d ~= 0 and d <= now then return 'd' end\n  if value[p] then\n    local answer",
		},
		promise: func(m *mutant) error {
			r := m.ask("ann")
			r.Deadline = m.clock.now.Add(time.Minute)
			err := m.try(r)
			m.clock.pass(time.Minute)
			return errors.Join(err, m.try(r))
		},
	},
	{
		name: "an attempt after its deadline has no effect", script: "reserve",
		edits:   []string{"if d ~= 0 and d <= now then return 'd' end", ""},
		promise: pastDeadline,
	},
	{
		name: "a deadline makes the batch uneven", script: "reserve",
		edits:   []string{"(mindeadline == 0 or mindeadline > now)", "true"},
		promise: pastDeadline,
	},
	{
		name: "an attempt older than the retention has no effect", script: "reserve",
		edits:   []string{"if o ~= 0 and o <= oldest then return 'o' end", ""},
		promise: tooOldAttempt,
	},
	{
		name: "an old attempt makes the batch uneven", script: "reserve",
		edits:   []string{"(minborn == 0 or minborn > oldest)", "true"},
		promise: tooOldAttempt,
	},
	{
		name: "nothing is sold before it opens", script: "reserve",
		edits: []string{"opens ~= '0' and tonumber(opens) > now", "false"},
		pool:  func(p *stock.Pool) { p.Opens = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) },
		promise: func(m *mutant) error {
			return wants(m.try(m.ask("ann")), stock.ErrNotOpen)
		},
	},
	{
		name: "nothing is sold after it closes", script: "reserve",
		edits: []string{"closes ~= '0' and tonumber(closes) <= now", "false"},
		pool:  func(p *stock.Pool) { p.Closes = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) },
		promise: func(m *mutant) error {
			return wants(m.try(m.ask("ann")), stock.ErrClosed)
		},
	},
	{
		name: "an ended hold is taken over in the same call", script: "reserve",
		edits: []string{"  return pastdue\n", "  return false\n"},
		pool:  func(p *stock.Pool) { p.Total = 1 },
		promise: func(m *mutant) error {
			err := m.try(m.ask("ann"))
			m.clock.pass(time.Hour)
			return errors.Join(err, m.try(m.ask("bob")), m.counts(0, 1, 0))
		},
	},
	{
		name: "a buyer's own ended hold frees its allowance", script: "reserve",
		edits: []string{"local function lapsed(st, at) return st == 'h' and", "local function lapsed(st, at) return false and"},
		pool:  func(p *stock.Pool) { p.Limit = 1 },
		promise: func(m *mutant) error {
			err := m.try(m.ask("ann"))
			m.clock.pass(time.Hour)
			m.client.ZRemRangeByScore(m.t.Context(), m.keys()[1], "0", "9007199254740991") // nobody sweeps
			return errors.Join(err, m.try(m.ask("ann")), m.counts(9, 1, 0))
		},
	},
	{
		name: "an ended hold can't be confirmed", script: "change",
		edits: []string{"if st == 'h' and at <= now and ARGV[3] == '0' then", "if false then"},
		promise: func(m *mutant) error {
			r := m.ask("ann")
			err := m.try(r)
			m.clock.pass(time.Hour)
			_, confirm := m.store.Confirm(m.t.Context(), r.ID)
			return errors.Join(err, wants(confirm, stock.ErrExpired))
		},
	},
}

func pastDeadline(m *mutant) error {
	r := m.ask("ann")
	r.Deadline = m.clock.now
	return errors.Join(wants(m.try(r), stock.ErrTooLate), m.counts(10, 0, 0))
}

func tooOldAttempt(m *mutant) error {
	r := m.ask("ann")
	r.Born = m.clock.now.Add(-25 * time.Hour)
	return errors.Join(wants(m.try(r), stock.ErrTooLate), m.counts(10, 0, 0))
}
