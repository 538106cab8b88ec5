package redisstock

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Reconcile implements [stock.Store]. Each repair is made only where what it
// mends still stands as it was read, so it does not undo what happens
// meanwhile, and it may be run again.
func (s *Store) Reconcile(ctx context.Context, sku string) (stock.Audit, error) {
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return stock.Audit{}, err
	}
	var repairs []stock.Repair
	// The counts last: they are the sum of what was mended before.
	for _, counts := range []bool{false, true} {
		audit, err := s.Audit(ctx, sku)
		if err != nil {
			return audit, fmt.Errorf("reconcile: %w", err)
		}
		for _, f := range audit.Faults {
			if (f.Kind == stock.FaultCount) != counts {
				continue
			}
			r, err := s.repair(ctx, p, f)
			if err != nil {
				return audit, fmt.Errorf("reconcile: %w", err)
			}
			repairs = append(repairs, r)
		}
	}
	audit, err := s.Audit(ctx, sku)
	audit.Repairs = repairs
	if err != nil {
		return audit, fmt.Errorf("reconcile: %w", err)
	}
	return audit, nil
}

func (s *Store) repair(ctx context.Context, p *pool, f stock.Fault) (stock.Repair, error) {
	switch f.Kind {
	case stock.FaultStray, stock.FaultLedger:
		return s.repairRecord(ctx, p, f)
	case stock.FaultCount:
		return s.repairCounts(ctx, p, f)
	case stock.FaultRecord:
		if s.ledger == nil {
			return stock.Repair{Fault: f, Text: "nobody else knows what it said"}, nil
		}
		return stock.Repair{Fault: f, Text: "once the pool's keys are deleted, Rebuild restores what the ledger has"}, nil
	default:
		return stock.Repair{Fault: f, Text: "units that were sold stay sold"}, nil
	}
}

// repairRecord makes a reservation what the ledger says, or gives a stray hold
// its end back.
func (s *Store) repairRecord(ctx context.Context, p *pool, f stock.Fault) (stock.Repair, error) {
	buyer := buyerOf(f.ID)
	field, err := s.client.HMGet(ctx, p.keys[poolKey], buyer).Result()
	if err != nil {
		return stock.Repair{}, unknown("read reservation", err)
	}
	r := recordIn(p, buyer, toString(field[0]), f.ID)
	was, is := "", ""
	if r != nil {
		was, is = r.text, r.text
	}
	if f.Kind == stock.FaultLedger {
		if is, err = s.byLedger(ctx, p, f.ID, r); err != nil {
			return stock.Repair{}, err
		}
	}
	if is == "" || f.Kind == stock.FaultLedger && is == was || f.Kind == stock.FaultStray && r.letter != 'h' {
		return stock.Repair{Fault: f, Text: "it has been settled meanwhile"}, nil
	}
	claim := f.ID.ClaimPart()
	reply, err := s.call(ctx, p, false, s.scripts.repair, 1, "record", buyer, claim[:], was, is)
	if err != nil {
		return stock.Repair{}, err
	}
	if toString(reply.rest[0]) != "done" {
		return stock.Repair{Fault: f, Text: "it changed meanwhile: run it again"}, nil
	}
	p.reopen()
	if is == was {
		return stock.Repair{Fault: f, Done: true, Text: "the hold ends at its time again"}, nil
	}
	if was == "" {
		was = "nothing"
	}
	return stock.Repair{Fault: f, Done: true, Text: fmt.Sprintf("it was %s and is %s", strings.TrimSuffix(was, ";"), strings.TrimSuffix(is, ";"))}, nil
}

// byLedger is what the record should say.
func (s *Store) byLedger(ctx context.Context, p *pool, id stock.ID, r *record) (string, error) {
	entries, err := s.ledger.Find(ctx, p.opened.SKU, []stock.ID{id})
	if err != nil {
		return "", fmt.Errorf("find in ledger: %w", err)
	}
	if len(entries) != 1 {
		return "", fmt.Errorf("redisstock: the ledger found %d of 1", len(entries))
	}
	e := &entries[0]
	if agrees(r, e, p) {
		if r == nil {
			return "", nil
		}
		return r.text, nil
	}
	letter, said, err := truth(e, r, p)
	if err != nil || letter == 0 {
		return "", err
	}
	at := time.Now()
	if letter == 'h' {
		at = e.Expires
	}
	return fmt.Sprintf("%c%s,%d;", letter, said, millis(at)), nil
}

// repairCounts makes the counts the sum of the reservations, at one moment.
func (s *Store) repairCounts(ctx context.Context, p *pool, f stock.Fault) (stock.Repair, error) {
	a := newAuditor(s, p)
	if err := a.read(ctx); err != nil {
		return stock.Repair{}, err
	}
	if a.out.Changed {
		return stock.Repair{Fault: f, Text: "the pool changes too fast to be summed up: pause it and run this again"}, nil
	}
	if a.unread { // the units of what can't be read may be sold
		return stock.Repair{Fault: f, Text: "a record can't be read, so the sum is not known"}, nil
	}
	var counts strings.Builder
	for i, item := range itemsOf(&a.now.terms.Pool) {
		sum := a.sums[i]
		fmt.Fprintf(&counts, "%d,%d,%d;", item.Total-sum.held-sum.sold, sum.held, sum.sold)
	}
	r, err := s.call(ctx, p, false, s.scripts.repair, 1, "counts", a.now.counts, counts.String())
	if err != nil {
		return stock.Repair{}, err
	}
	if toString(r.rest[0]) != "done" {
		return stock.Repair{Fault: f, Text: "it changed meanwhile: run it again"}, nil
	}
	p.reopen()
	return stock.Repair{Fault: f, Done: true, Text: "the counts are " + counts.String()}, nil
}
