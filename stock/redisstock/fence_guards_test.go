package redisstock_test

import (
	"errors"
	"regexp"
	"time"

	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

var fenceGuards = []guard{
	{
		name: "another epoch is fenced", script: "reserve",
		edits: []string{"(ARGV[1] ~= '0' and ARGV[1] ~= epoch) or", ""},
		promise: func(m *mutant) error {
			err := m.try(m.ask("ann"))
			m.edit("m", `^\d+`, "1")
			return errors.Join(err, wants(m.try(m.ask("bob")), stock.ErrFenced))
		},
	},
	{
		name: "a lower sequence number is fenced", script: "reserve",
		edits: []string{" or tonumber(seq) < tonumber(ARGV[2])", ""},
		promise: func(m *mutant) error {
			err := errors.Join(m.try(m.ask("ann")), m.try(m.ask("bob")))
			m.edit("m", `^(\d+),\d+`, "$1,1")
			return errors.Join(err, wants(m.try(m.ask("cay")), stock.ErrFenced))
		},
	},
	{
		name: "a pool that is being rebuilt is fenced", script: "reserve",
		edits: []string{"state ~= 'o' or ", ""},
		promise: func(m *mutant) error {
			m.edit("m", `,o,`, ",b,")
			return wants(m.try(m.ask("ann")), stock.ErrFenced)
		},
	},
	{
		name: "an unknown format is refused", script: "reserve",
		edits: []string{"if v ~= '1' then return {'version', match(terms, '^%d*')} end", ""},
		promise: func(m *mutant) error {
			m.edit("t", `^1`, "2")
			if err := m.try(m.ask("ann")); err == nil {
				return errors.New("a pool of another format was sold from")
			}
			return nil
		},
	},
	{
		name: "a pool that has a ledger is not sold from without one", script: "reserve",
		edits: []string{"if ledger ~= ARGV[3] then return {'ledger', ledger} end", ""},
		promise: func(m *mutant) error {
			m.edit("t", `^1,0`, "1,1")
			if err := m.try(m.ask("ann")); err == nil {
				return errors.New("it was sold from")
			}
			return nil
		},
	},
	{
		name: "promised units are not opened anew", script: "open",
		edits: []string{" or redis.call('HLEN', KEYS[1]) > 0 or redis.call('ZCARD', KEYS[2]) > 0", ""},
		promise: func(m *mutant) error {
			err := m.try(m.ask("ann"))
			m.client.HDel(m.t.Context(), m.keys()[0], "t", "m")
			_, open := m.store.Open(m.t.Context(), m.pool)
			return errors.Join(err, wants(open, stock.ErrFenced))
		},
	},
}

var journalGuards = []guard{
	{
		name: "what nobody has relayed is not trimmed in the place of what was", script: "trim",
		edits: []string{"if not last then break end", "last = last or pos"},
		promise: func(m *mutant) error {
			m.hold("ann")
			relayed, err := m.store.ReadJournal(m.t.Context(), m.pool.SKU, 1)
			m.supplant()
			err = errors.Join(err, m.store.TrimJournal(m.t.Context(), m.pool.SKU, positions(relayed)...))
			if left := m.events(); len(left) != 1 {
				err = errors.Join(err, errorf("%d events are left", len(left)))
			}
			return err
		},
	},
}

// edit changes terms (t) or counts (m) where they match.
func (s *stand) edit(field, pattern, by string) {
	s.t.Helper()
	was := s.client.HGet(s.t.Context(), s.keys()[0], field).Val()
	is := regexp.MustCompile(pattern).ReplaceAllString(was, by)
	if is == was {
		s.t.Fatalf("%s is %s, in which nothing is %s", field, was, pattern)
	}
	if err := s.client.HSet(s.t.Context(), s.keys()[0], field, is).Err(); err != nil {
		s.t.Fatal(err)
	}
}

var ledgerGuards = []guard{
	{
		name: "nothing is freed past the ledger by a sweep", script: "sweep", ledger: true,
		edits: []string{"      if ARGV[3] == '0' then", "      if true then"},
		promise: func(m *mutant) error {
			id := m.overdue(stock.Keep)
			return errors.Join(redisstock.SweepOnce(m.t.Context(), m.store, m.pool.SKU), m.is(id, stock.Held), m.counts(9, 1, 0))
		},
	},
	{
		name: "nothing is freed past the ledger by its own buyer", script: "reserve", ledger: true,
		edits: []string{"at <= now and ARGV[3] == '0' end", "at <= now end"},
		promise: func(m *mutant) error {
			id := m.overdue(stock.Keep)
			return errors.Join(m.try(m.ask("ann")), m.is(id, stock.Held), m.counts(8, 2, 0))
		},
	},
	{
		name: "what the ledger sold is confirmed after its time", script: "change", ledger: true,
		edits: []string{"at <= now and ARGV[3] == '0' then", "at <= now then"},
		promise: func(m *mutant) error {
			_, err := m.store.Confirm(m.t.Context(), m.overdue(stock.IsSold))
			return errors.Join(err, m.counts(9, 0, 1))
		},
	},
	{
		name: "an undecided hold stays in the index when a loser asks", script: "reserve", ledger: true,
		edits: []string{"if st == 'h' and at <= score then", "if false then"},
		pool:  func(p *stock.Pool) { p.Total = 1 },
		promise: func(m *mutant) error {
			m.overdue(stock.Undecided)
			err := wants(m.try(m.ask("bob")), stock.ErrAllHeld)
			m.ledger.verdict = func(stock.ID) stock.Verdict { return stock.Free }
			m.clock.pass(time.Second)
			return errors.Join(err, m.soon(m.ask("cay")))
		},
	},
	{
		name: "a verdict touches only what is still held", script: "settle", ledger: true,
		edits: []string{"  if st ~= 'h' or at > now then\n", "  if not st then\n"},
		promise: func(m *mutant) error {
			id := m.overdue(stock.Free)
			m.ledger.verdict = func(stock.ID) stock.Verdict {
				_, _ = m.store.Confirm(m.t.Context(), id) // it was sold on the way
				return stock.Free
			}
			return errors.Join(redisstock.SweepOnce(m.t.Context(), m.store, m.pool.SKU), m.is(id, stock.Sold), m.counts(9, 0, 1))
		},
	},
	{
		name: "an undecided hold is asked about later", script: "settle", ledger: true,
		edits: []string{"if v == 'u' then add", "if false then add"},
		pool:  func(p *stock.Pool) { p.Total = 1 },
		promise: func(m *mutant) error {
			m.overdue(stock.Undecided)
			err := redisstock.SweepOnce(m.t.Context(), m.store, m.pool.SKU)
			m.ledger.verdict = func(stock.ID) stock.Verdict { return stock.Free }
			m.clock.pass(time.Second)
			return errors.Join(err, m.soon(m.ask("bob")))
		},
	},
}

// soon reserves, again for a while if all units are held: a slow ledger is not
// waited for.
func (m *mutant) soon(r stock.Request) (err error) {
	for range 50 {
		if err = m.try(r); !errors.Is(err, stock.ErrAllHeld) {
			break
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-m.t.Context().Done():
			return err
		}
	}
	return err
}

// overdue makes a hold whose time has ended and on which the ledger says v.
func (m *mutant) overdue(v stock.Verdict) stock.ID {
	m.ledger.verdict = func(stock.ID) stock.Verdict { return v }
	id := m.hold("ann").ID
	m.clock.pass(time.Hour)
	return id
}
