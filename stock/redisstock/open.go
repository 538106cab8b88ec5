package redisstock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Open implements [stock.Store]. With a ledger, the pool is recorded there
// first; a process that dies between the two leaves a fenced pool, which
// Rebuild opens.
func (s *Store) Open(ctx context.Context, p stock.Pool) (stock.Levels, error) {
	p, err := p.Normalize()
	if err != nil {
		return stock.Levels{}, err
	}
	if s.ledger == nil {
		return s.create(ctx, &p, &stock.Terms{Pool: p, Version: 1}, stock.Mark{}, true)
	}
	terms, mark, existed, err := s.ledger.Open(ctx, p)
	if err != nil {
		return stock.Levels{}, fmt.Errorf("open in ledger: %w", err)
	}
	levels, err := s.create(ctx, &p, &terms, mark, !existed)
	if existed && errors.Is(err, stock.ErrFenced) {
		// Another process may be between the two steps at this moment.
		return s.awaitPool(ctx, &p, &terms, mark)
	}
	return levels, err
}

// openPatience is how long Open waits for another process that has recorded
// the pool and not yet created it.
const openPatience = time.Second

func (s *Store) awaitPool(ctx context.Context, p *stock.Pool, terms *stock.Terms, mark stock.Mark) (stock.Levels, error) {
	end := time.Now().Add(openPatience)
	for {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return stock.Levels{}, err
		}
		levels, err := s.create(ctx, p, terms, mark, false)
		if !errors.Is(err, stock.ErrFenced) || time.Now().After(end) {
			return levels, err
		}
		if _, now, err := s.ledger.Pool(ctx, p.SKU); err == nil {
			mark = now
		}
	}
}

// create runs open.lua and makes the pool known to this process. missing lets
// it make a pool that is not there.
func (s *Store) create(ctx context.Context, p *stock.Pool, terms *stock.Terms, mark stock.Mark, missing bool) (stock.Levels, error) {
	part := partOf(p.SKU)
	opened, err := openedText(p)
	if err != nil {
		return stock.Levels{}, fmt.Errorf("redisstock: open: %w", err)
	}
	fresh := ",0,o,0;"
	for _, item := range itemsOf(&terms.Pool) {
		fresh += fmt.Sprintf("%d,0,0;", item.Total)
	}
	raw, err := s.runner.RunNow(ctx, s.scripts.open, keysOf(s.opts.Prefix, part),
		mark.Epoch, bit(missing), termsText(terms, s.ledgerFlag()), fresh, opened)
	if err != nil {
		return stock.Levels{}, unknown("open", err)
	}
	list, _ := raw.([]any)
	if len(list) == 0 {
		return stock.Levels{}, fmt.Errorf("redisstock: unexpected reply %T", raw)
	}
	switch status := toString(list[0]); {
	case (status == "created" || status == "same") && len(list) == 3:
		return s.opened(p, mark, toString(list[1]), toString(list[2]))
	case status == "other" && s.ledger != nil && len(list) == 3: // the ledger has compared already
		return s.opened(p, mark, toString(list[1]), toString(list[2]))
	case status == "other":
		return stock.Levels{}, stock.ErrPoolExists
	case status == "retired":
		return stock.Levels{}, stock.ErrRetired
	case status == "missing" || status == "fenced":
		if s.ledger != nil {
			s.adopt(part, p, mark)
		}
		return stock.Levels{}, stock.ErrFenced
	case status == "version":
		return stock.Levels{}, wrongVersion(list)
	default:
		return stock.Levels{}, fmt.Errorf("redisstock: unexpected reply %q", status)
	}
}

// opened takes over a pool that stands with the terms and counts given.
func (s *Store) opened(p *stock.Pool, mark stock.Mark, termsOf, counts string) (stock.Levels, error) {
	terms, err := parseTerms(termsOf, p)
	if err != nil {
		return stock.Levels{}, err
	}
	seen, items, err := parseCounts(counts)
	if err != nil {
		return stock.Levels{}, err
	}
	part := partOf(p.SKU)
	if s.ledger != nil && seen.Seq < mark.Seq {
		s.adopt(part, p, mark)
		return stock.Levels{}, stock.ErrFenced // the server has lost writes that the ledger heard of
	}
	h := s.adopt(part, p, seen)
	h.sawOpen(seen, s.ledger == nil)
	return levelsOf(&terms, items), nil
}

// sawOpen takes over the mark of an opened pool. Without a ledger nobody can
// say which of two epochs is right, so opening anew is what accepts it.
func (p *pool) sawOpen(m stock.Mark, accept bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if accept && p.mark.Epoch != m.Epoch {
		p.mark, p.given = m, stock.Mark{} // epochs without a ledger have no order
		p.reopen()
	}
}

// Levels implements [stock.Store].
func (s *Store) Levels(ctx context.Context, sku string) (stock.Levels, error) {
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return stock.Levels{}, err
	}
	state, err := s.stateOf(ctx, p, true)
	return state.levels, err
}

// standing is a pool's terms and counts at one moment.
type standing struct {
	terms  stock.Terms
	text   string // the terms as they stand there
	counts string // the counts likewise
	mark   stock.Mark
	levels stock.Levels
	at     time.Time // by the server's clock; zero where that was not asked
}

func (s *Store) stateOf(ctx context.Context, p *pool, shared bool) (standing, error) {
	r, err := s.call(ctx, p, shared, s.scripts.levels, 2)
	if err != nil {
		return standing{}, err
	}
	st, err := readStanding(p, toString(r.rest[0]), toString(r.rest[1]))
	st.at = r.now
	return st, err
}

func readStanding(p *pool, terms, counts string) (standing, error) {
	st := standing{text: terms, counts: counts}
	var err error
	if st.terms, err = parseTerms(terms, p.opened); err != nil {
		return st, err
	}
	var items []count
	if st.mark, items, err = parseCounts(counts); err != nil {
		return st, err
	}
	st.levels = levelsOf(&st.terms, items)
	return st, nil
}

// pause waits, or returns the reason why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
