package redisstock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Adjust implements [stock.Store]. With a ledger the terms change there first
// and Redis follows; units that are taken out are held back in Redis before, so
// that nobody gets them meanwhile. A process that dies in between leaves a
// pool with terms that differ; whoever runs [Store.Run] puts them right within
// some seconds, and so does a repeat.
func (s *Store) Adjust(ctx context.Context, a stock.Adjustment) (stock.Levels, error) {
	if err := a.Validate(); err != nil {
		return stock.Levels{}, err
	}
	p, err := s.poolOf(ctx, a.SKU)
	if err != nil {
		return stock.Levels{}, err
	}
	if s.ledger == nil {
		return s.adjustAlone(ctx, p, &a)
	}
	if _, err := s.stateOf(ctx, p, false); err != nil { // fenced: nothing is changed, in the ledger neither
		return stock.Levels{}, err
	}
	if err := s.holdBack(ctx, p, &a); err != nil {
		return stock.Levels{}, err
	}
	_, err = s.ledger.Adjust(ctx, a)
	if err != nil {
		err = fmt.Errorf("adjust in ledger: %w", err)
		if isRefusal(err) && holdsBack(&a) { // its own units are for sale again
			_, syncErr := s.sync(ctx, p)
			err = errors.Join(err, syncErr)
		}
		return stock.Levels{}, err
	}
	levels, err := s.sync(ctx, p)
	if err != nil {
		err = fmt.Errorf("%w: the ledger is adjusted and the store not yet: %w", stock.ErrUnknown, err)
	}
	return levels, err
}

func isRefusal(err error) bool {
	for _, no := range []error{stock.ErrVersion, stock.ErrOver, stock.ErrRetired, stock.ErrInvalid, stock.ErrUnknownSKU} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// adjustAlone adjusts a pool without a ledger.
func (s *Store) adjustAlone(ctx context.Context, p *pool, a *stock.Adjustment) (stock.Levels, error) {
	if less(a) {
		if err := s.sweepAll(ctx, p); err != nil {
			return stock.Levels{}, err
		}
	}
	for {
		st, err := s.stateOf(ctx, p, false)
		if err != nil {
			return stock.Levels{}, err
		}
		next, again, err := st.terms.Adjust(a)
		if err != nil || again {
			return st.levels, err
		}
		levels, changed, err := s.swap(ctx, p, &st, &next, a.Force, "")
		if err != nil || changed {
			return levels, err
		}
	}
}

// heldBack marks terms whose units are held back for an adjustment that is to
// come; after it stands the time, which tells one from the next.
const heldBack = "~"

// An adjustment that holds units back counts as dead when others have seen it
// do so for this long: whoever wants to adjust puts the units back then, and Run
// does later. (By what they see themselves: clocks of processes may differ.)
const (
	heldBackPatience = 2 * time.Second
	heldBackFor      = 15 * time.Second
)

// holdsBack returns the mark of terms whose units are held back, or "".
func (st *standing) holdsBack() string {
	if _, mark, ok := strings.Cut(st.text, heldBack); ok {
		return mark
	}
	return ""
}

// awaitHeldBack lets another adjustment that is under way come to its end, and
// puts right what a dead one has left.
func (s *Store) awaitHeldBack(ctx context.Context, p *pool) error {
	for seen, since := "", time.Now(); ; {
		st, err := s.stateOf(ctx, p, false)
		if err != nil {
			return err
		}
		mark := st.holdsBack()
		if mark != seen {
			seen, since = mark, time.Now()
		}
		if mark == "" || time.Since(since) >= heldBackPatience {
			_, err := s.sync(ctx, p)
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// holdBack takes the units out of sale that an adjustment takes out, where it
// must not take more than is free.
func (s *Store) holdBack(ctx context.Context, p *pool, a *stock.Adjustment) error {
	if !holdsBack(a) {
		return nil
	}
	if err := s.sweepAll(ctx, p); err != nil {
		return err
	}
	for {
		if err := s.awaitHeldBack(ctx, p); err != nil {
			return err
		}
		st, err := s.stateOf(ctx, p, false)
		if err != nil {
			return err
		}
		next, again, err := st.terms.Adjust(a)
		if err != nil || again {
			return err
		}
		held := st.terms
		held.Pool = next.Pool
		held.Opens, held.Closes = st.terms.Opens, st.terms.Closes
		for i, item := range itemsOf(&held.Pool) { // what is added is not for sale yet
			if before := itemsOf(&st.terms.Pool)[i]; item.Total > before.Total {
				if len(held.Items) == 0 {
					held.Total = before.Total
				} else {
					held.Items[i].Total = before.Total
				}
			}
		}
		_, changed, err := s.swap(ctx, p, &st, &held, false, fmt.Sprintf("%s%d", heldBack, time.Now().UnixMilli()))
		if err != nil || changed {
			return err
		}
	}
}

// holdsBack reports whether an adjustment has to hold units back first.
func holdsBack(a *stock.Adjustment) bool { return less(a) && !a.Force }

// less reports whether units are taken out.
func less(a *stock.Adjustment) bool {
	for _, l := range a.Add {
		if l.Quantity < 0 {
			return true
		}
	}
	return false
}

// sweepAll frees what is past its time, so that it can be taken out.
func (s *Store) sweepAll(ctx context.Context, p *pool) error {
	for range 10_000 { // a bound far beyond any pool
		wait, err := s.sweep(ctx, p)
		if err != nil || wait > 0 {
			return err
		}
	}
	return nil
}

// swap puts next in the place of the terms as they were read, and reports
// whether they still stood so.
func (s *Store) swap(ctx context.Context, p *pool, st *standing, next *stock.Terms, force bool, mark string) (stock.Levels, bool, error) {
	var deltas strings.Builder
	was := itemsOf(&st.terms.Pool)
	for i, item := range itemsOf(&next.Pool) {
		fmt.Fprintf(&deltas, "%d;", item.Total-was[i].Total)
	}
	r, err := s.call(ctx, p, false, s.scripts.adjust, 3, st.text, termsText(next, s.ledgerFlag())+mark, bit(force), deltas.String())
	if err != nil {
		p.mayReopen(err)
		return stock.Levels{}, false, err
	}
	switch toString(r.rest[0]) {
	case "done", "again":
		p.reopen()
		now, err := readStanding(p, toString(r.rest[1]), toString(r.rest[2]))
		return now.levels, true, err
	case "over":
		return stock.Levels{}, false, &stock.OverError{By: toInt(r.rest[2])}
	default:
		return stock.Levels{}, false, nil
	}
}

// sync brings the terms in Redis to those of the ledger.
func (s *Store) sync(ctx context.Context, p *pool) (stock.Levels, error) {
	for {
		st, err := s.stateOf(ctx, p, false)
		if err != nil {
			return stock.Levels{}, err
		}
		terms, _, err := s.ledger.Pool(ctx, p.opened.SKU)
		if err != nil {
			return stock.Levels{}, fmt.Errorf("read terms from ledger: %w", err)
		}
		if terms.Retired {
			return stock.Levels{}, stock.ErrRetired
		}
		if st.terms.Version > terms.Version || termsText(&terms, s.ledgerFlag()) == st.text {
			return st.levels, nil // a read that was overtaken, or nothing to do
		}
		// What was sold stays sold, and what was promised stays so: the ledger
		// has decided, so more than is free may go.
		levels, changed, err := s.swap(ctx, p, &st, &terms, true, "")
		if err != nil || changed {
			return levels, err
		}
	}
}

const termsPause = 5 * time.Second

// followTerms compares the terms with the ledger's from time to time, since a
// process may have died between the two.
func (s *Store) followTerms(ctx context.Context, p *pool) error {
	if s.ledger == nil || time.Since(p.chores.terms) < termsPause {
		return nil
	}
	c := &p.chores
	c.terms = time.Now()
	st, err := s.stateOf(ctx, p, false)
	if err != nil {
		return err
	}
	if mark := st.holdsBack(); mark != c.heldBack {
		c.heldBack, c.heldSince = mark, time.Now()
	}
	if c.heldBack != "" && time.Since(c.heldSince) < heldBackFor {
		return nil // it is on its way
	}
	_, err = s.sync(ctx, p)
	return err
}
