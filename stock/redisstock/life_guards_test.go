package redisstock_test

import (
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/stocktest"
)

var lifeGuards = []guard{
	{
		name: "a part is never more than there is", script: "change",
		edits: []string{"if want[i] > (have[i] or 0) then return nil end", ""},
		promise: func(m *mutant) error {
			r := m.ask("ann")
			err := m.try(r)
			_, confirm := m.store.Confirm(m.t.Context(), r.ID, stock.Line{Quantity: 2})
			return errors.Join(err, wants(confirm, stock.ErrMismatch), m.counts(9, 1, 0))
		},
	},
	{
		name: "of a part the rest is given back", script: "change",
		edits: []string{"    shift(back, held, free)\n", ""},
		promise: func(m *mutant) error {
			r := m.ask("ann")
			r.Quantity = 3
			err := m.try(r)
			_, confirm := m.store.Confirm(m.t.Context(), r.ID, stock.Line{Quantity: 2})
			return errors.Join(err, confirm, m.counts(8, 0, 2))
		},
	},
	{
		name: "another part than the first is a mismatch", script: "change",
		edits: []string{"then return answer('amount') end end", "then return answer('again') end end"},
		promise: func(m *mutant) error {
			r := m.ask("ann")
			r.Quantity = 3
			err := m.try(r)
			_, one := m.store.Confirm(m.t.Context(), r.ID, stock.Line{Quantity: 1})
			_, two := m.store.Confirm(m.t.Context(), r.ID, stock.Line{Quantity: 2})
			return errors.Join(err, one, wants(two, stock.ErrMismatch))
		},
	},
	{
		name: "a late confirmation that was refused stays refused", script: "change",
		edits:   []string{"  if st == 'l' then return late == '1' and 'nomore' or 'no' end\n", ""},
		pool:    func(p *stock.Pool) { p.Total, p.Late = 1, stock.LateIfFree },
		promise: refusedLate,
	},
	{
		name: "a late confirmation needs a free unit", script: "change",
		edits:   []string{"if u[i] and (free[i] < u[i] or", "if u[i] and ("},
		pool:    func(p *stock.Pool) { p.Total, p.Late = 1, stock.LateIfFree },
		promise: refusedLate,
	},
	{
		name: "a late confirmation keeps the buyer's limit", script: "change",
		edits: []string{"  if limit > 0 and taken + sum > limit then return false end\n", ""},
		pool:  func(p *stock.Pool) { p.Limit, p.Late = 1, stock.LateIfFree },
		promise: func(m *mutant) error {
			late := m.hold("ann").ID
			m.clock.pass(time.Hour)
			m.hold("ann")
			_, err := m.store.Confirm(m.t.Context(), late)
			return errors.Join(wants(err, stock.ErrLate), m.counts(9, 1, 0))
		},
	},
	{
		name: "a strict pool confirms nothing late", script: "change",
		edits: []string{"if late == '1' and available(paid) then", "if available(paid) then"},
		promise: func(m *mutant) error {
			late := m.hold("ann").ID
			m.clock.pass(time.Hour)
			_, err := m.store.Confirm(m.t.Context(), late)
			return errors.Join(wants(err, stock.ErrExpired), m.counts(10, 0, 0))
		},
	},
	{
		name: "an ended hold can't be extended", script: "change",
		edits: []string{"if not live or st == 'h' and at <= now then return answer('no') end", ""},
		promise: func(m *mutant) error {
			id := m.hold("ann").ID
			m.clock.pass(time.Hour)
			_, err := m.store.Extend(m.t.Context(), id, m.clock.now.Add(time.Hour))
			return wants(err, stock.ErrExpired)
		},
	},
	{
		name: "an extension never shortens", script: "change",
		edits: []string{"if st == 'k' or tonumber(arg) <= at then return answer('again') end", ""},
		promise: func(m *mutant) error {
			hold := m.hold("ann")
			_, err := m.store.Extend(m.t.Context(), hold.ID, m.clock.now.Add(time.Minute))
			m.clock.pass(30 * time.Minute)
			return errors.Join(err, m.is(hold.ID, stock.Held))
		},
	},
	{
		name: "an extended hold is not ended by its first entry", script: "sweep",
		edits: []string{"if st == 'h' and at <= now then", "if st == 'h' then"},
		promise: func(m *mutant) error {
			hold := m.hold("ann")
			_, err := m.store.Extend(m.t.Context(), hold.ID, hold.Expires.Add(time.Hour))
			m.clock.pass(time.Hour)
			return errors.Join(err, redisstock.SweepOnce(m.t.Context(), m.store, m.pool.SKU), m.is(hold.ID, stock.Held))
		},
	},
	{
		name: "only free units are taken out", script: "adjust",
		edits: []string{"if by > 0 and ARGV[8] ~= '1' then", "if false then"},
		promise: func(m *mutant) error {
			m.hold("ann")
			return errors.Join(wants(m.adjust(1, -10), stock.ErrOver), m.counts(9, 1, 0))
		},
	},
	{
		name: "of adjustments of one version one wins", script: "adjust",
		edits: []string{"if terms ~= ARGV[6] then return answer('other') end", ""},
		promise: func(m *mutant) error {
			dialer := faulty.NewDialer()
			late := redis.NewClient(&redis.Options{Addr: m.clock.server.Addr(), Dialer: dialer.DialContext})
			m.t.Cleanup(func() { _ = late.Close() })
			other := &stand{t: m.t, store: mustStore(m.t, m.client, nil, nil), pool: m.pool}
			redisstock.Reconnect(m.store, late)
			loaded := m.counts(10, 0, 0)
			read := dialer.DelayReply(1, 300*time.Millisecond, isScript)
			var slow error
			var all sync.WaitGroup
			all.Go(func() { slow = m.adjust(1, 1) }) // reads the terms, and is overtaken
			read.MustFire(m.t)
			err := other.adjust(1, 1)
			all.Wait()
			return errors.Join(loaded, err, wants(slow, stock.ErrVersion), m.counts(11, 0, 0))
		},
	},
	{
		name: "nothing is sold while the pool is paused", script: "reserve",
		edits: []string{"if paused == '1' then shut = 'p'", "if false then shut = 'p'"},
		promise: func(m *mutant) error {
			return errors.Join(m.pause(), wants(m.try(m.ask("ann")), stock.ErrPaused))
		},
	},
	{
		name: "a basket is held whole or not at all", script: "reserve",
		edits: []string{"    no = short(u)\n", "    no = nil\n"},
		pool: func(p *stock.Pool) {
			p.Total, p.Items = 0, []stock.Item{{SKU: "a", Total: 10}, {SKU: "b", Total: 1}}
		},
		promise: func(m *mutant) error {
			r := m.ask("ann")
			r.Quantity, r.Lines = 0, []stock.Line{{SKU: "a", Quantity: 1}, {SKU: "b", Quantity: 2}}
			return errors.Join(wants(m.try(r), stock.ErrSoldOut), m.counts(11, 0, 0))
		},
	},
	{
		name: "the limit of one SKU holds", script: "reserve",
		edits: []string{"if u[i] and limits[i] > 0 and t + u[i] > limits[i] then", "if false then"},
		pool: func(p *stock.Pool) {
			p.Total, p.Items = 0, []stock.Item{{SKU: "a", Total: 10, Limit: 1}, {SKU: "b", Total: 1}}
		},
		promise: func(m *mutant) error {
			r := m.ask("ann")
			r.Quantity, r.Lines = 0, []stock.Line{{SKU: "a", Quantity: 2}}
			return wants(m.try(r), stock.ErrLimit)
		},
	},
	{
		name: "what is sold is never forgotten", script: "forget",
		edits: []string{"if (st == 'c' or st == 'x' or st == 'l' or st == 'r') and at < oldest then", "if at < oldest then"},
		promise: func(m *mutant) error {
			id := m.hold("ann").ID
			_, err := m.store.Confirm(m.t.Context(), id)
			m.clock.pass(48 * time.Hour)
			m.forgetAll()
			return errors.Join(err, m.is(id, stock.Sold))
		},
	},
	{
		name: "nothing that is held is retired", script: "retire",
		edits: []string{"if held[i] > 0 then return answer('held') end", ""},
		promise: func(m *mutant) error {
			m.hold("ann")
			m.drain()
			return errors.Join(m.pause(), wants(m.store.Retire(m.t.Context(), m.pool.SKU), stock.ErrInUse))
		},
	},
	{
		name: "an open sale is not retired", script: "retire",
		edits: []string{"then return answer('open') end", "then end"},
		promise: func(m *mutant) error {
			return wants(m.store.Retire(m.t.Context(), m.pool.SKU), stock.ErrInUse)
		},
	},
	{
		name: "no event is lost by retiring", script: "retire",
		edits: []string{"if jmax >= 0 and redis.call('XLEN', JOURNAL) > 0 then return answer('journal') end", ""},
		promise: func(m *mutant) error {
			_, err := m.store.Cancel(m.t.Context(), m.hold("ann").ID)
			return errors.Join(err, m.pause(), wants(m.store.Retire(m.t.Context(), m.pool.SKU), stock.ErrInUse))
		},
	},
}

// adjust adds units on a version of the terms.
func (s *stand) adjust(version, units int64) error {
	_, err := s.store.Adjust(s.t.Context(), stock.Adjustment{
		ID: stocktest.Claim(), SKU: s.pool.SKU, Version: version, Add: []stock.Line{{Quantity: units}},
	})
	return err
}

func (s *stand) pause() error {
	_, err := s.store.Adjust(s.t.Context(), stock.Adjustment{ID: stocktest.Claim(), SKU: s.pool.SKU, Version: 1, Pause: true})
	return err
}

// refusedLate lets a payment come late while the only unit is another's, and
// again when it is free.
func refusedLate(m *mutant) error {
	late := m.hold("ann").ID
	m.clock.pass(time.Hour)
	other := m.hold("bob").ID
	_, first := m.store.Confirm(m.t.Context(), late)
	_, cancel := m.store.Cancel(m.t.Context(), other)
	_, second := m.store.Confirm(m.t.Context(), late)
	return errors.Join(wants(first, stock.ErrLate), cancel, wants(second, stock.ErrLate), m.counts(1, 0, 0))
}
