package redisstock

import (
	"context"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/stock"
)

const (
	auditAtOnce = 20_000                 // fields that are read in one command, a matter of milliseconds
	auditPage   = 500                    // fields, entries or index members read at once in a larger pool
	auditTries  = 3                      // until a larger pool has not changed meanwhile
	auditGrace  = 500 * time.Millisecond // how long a change may be on its way between store and ledger
	maxFaults   = 1000                   // that are listed
)

// Audit implements [stock.Store]. A pool of some thousand buyers is read at one
// moment. A larger one is read in pages, so that nobody waits for it: should it
// change meanwhile, Changed is set and the sums are not compared with the
// counts, which are exact in any case. What looks wrong is read again half a
// second later and reported if it is still so: what is merely on its way
// between store and ledger is not. It takes some 50 bytes of memory for each
// reservation.
func (s *Store) Audit(ctx context.Context, sku string) (stock.Audit, error) {
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return stock.Audit{}, err
	}
	a := newAuditor(s, p)
	if err := a.run(ctx); err != nil {
		return stock.Audit{}, fmt.Errorf("audit: %w", err)
	}
	return a.out, nil
}

// auditor is one audit under way.
type auditor struct {
	s    *Store
	p    *pool
	seed maphash.Seed
	out  stock.Audit

	now      standing            // when the sums were made
	terms    *stock.Terms        // when the buyers were read that are being judged
	clock    time.Time           // the server's, at the beginning
	sums     []count             // by item: held and sold
	seen     map[uint64]struct{} // buyers: a scan may return one twice
	due      map[uint64]struct{} // IDs in the index of expiries
	suspects map[string]struct{} // buyers who are to be read again
	unread   bool                // a field can't be read, so the sums lack its units
}

func newAuditor(s *Store, p *pool) *auditor { return &auditor{s: s, p: p, seed: maphash.MakeSeed()} }

func (a *auditor) hash(text string) uint64 { return maphash.String(a.seed, text) }

func (a *auditor) suspect(buyer string) {
	if len(a.suspects) < maxFaults {
		a.suspects[buyer] = struct{}{}
	} else {
		a.out.More = true
	}
}

func (a *auditor) fault(f stock.Fault) {
	if len(a.out.Faults) < maxFaults {
		a.out.Faults = append(a.out.Faults, f)
	} else {
		a.out.More = true
	}
}

func (a *auditor) run(ctx context.Context) error {
	for try := 1; ; try++ {
		if err := a.read(ctx); err != nil {
			return err
		}
		if !a.out.Changed || try == auditTries {
			break
		}
	}
	if err := a.entries(ctx); err != nil {
		return err
	}
	if len(a.suspects) > 0 {
		if err := pause(ctx, auditGrace); err != nil {
			return err
		}
		if err := a.readAgain(ctx); err != nil {
			return err
		}
	}
	a.compareCounts()
	return nil
}

// read looks at all reservations once.
func (a *auditor) read(ctx context.Context) error {
	var err error
	if a.now, err = a.s.stateOf(ctx, a.p, false); err != nil {
		return err
	}
	before := a.now.counts
	a.clock = a.now.at
	a.terms = &a.now.terms
	a.out, a.unread = stock.Audit{}, false
	a.sums, a.suspects = make([]count, a.p.items()), make(map[string]struct{})
	a.seen, a.due = make(map[uint64]struct{}), make(map[uint64]struct{})
	if err := a.readIndex(ctx); err != nil {
		return err
	}
	n, err := a.s.client.HLen(ctx, a.p.keys[poolKey]).Result()
	if err != nil {
		return unknown("count fields", err)
	}
	if n <= auditAtOnce {
		return a.readAtOnce(ctx)
	}
	for cursor := uint64(0); ; {
		page, next, err := a.s.client.HScan(ctx, a.p.keys[poolKey], cursor, "", auditPage).Result()
		if err != nil {
			return unknown("scan", err)
		}
		for i := 0; i+1 < len(page); i += 2 {
			a.look(page[i], page[i+1])
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	if a.now, err = a.s.stateOf(ctx, a.p, false); err != nil {
		return err
	}
	a.out.Changed = a.now.counts != before
	a.out.Levels = a.now.levels
	return nil
}

// readAtOnce reads a small pool, its counts with it.
func (a *auditor) readAtOnce(ctx context.Context) error {
	all, err := a.s.client.HGetAll(ctx, a.p.keys[poolKey]).Result()
	if err != nil {
		return unknown("read pool", err)
	}
	if a.now, err = readStanding(a.p, all["t"], all["m"]); err != nil {
		return err
	}
	a.out.Levels = a.now.levels
	for buyer, field := range all {
		a.look(buyer, field)
	}
	return nil
}

// readIndex remembers which IDs have an end.
func (a *auditor) readIndex(ctx context.Context) error {
	for cursor := uint64(0); ; {
		page, next, err := a.s.client.ZScan(ctx, a.p.keys[dueKey], cursor, "", auditPage).Result()
		if err != nil {
			return unknown("scan index", err)
		}
		for i := 0; i < len(page); i += 2 {
			for _, id := range memberIDs(page[i]) {
				a.due[a.hash(id)] = struct{}{}
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// memberIDs splits a member of the index into its IDs of 28 bytes.
func memberIDs(member string) []string {
	var ids []string
	for i := range len(member) {
		if member[i] == ':' {
			for rest := member[i+1:]; len(rest) >= 28; rest = rest[28:] {
				ids = append(ids, rest[:28])
			}
			break
		}
	}
	return ids
}

// look takes one field into the sums.
func (a *auditor) look(buyer, field string) {
	if len(buyer) != 12 {
		return // terms or counts
	}
	h := a.hash(buyer)
	if _, again := a.seen[h]; again {
		return
	}
	a.seen[h] = struct{}{}
	list, ok := parseRecords(a.p, buyer, field)
	a.unread = a.unread || !ok
	if !ok || a.overLimit(list) {
		a.suspect(buyer)
	}
	for i := range list {
		r := &list[i]
		a.out.Looked++
		a.add(r)
		if _, indexed := a.due[a.hash(string(r.id[8:]))]; r.letter == 'h' && !indexed {
			a.suspect(buyer)
		}
	}
}

func (a *auditor) add(r *record) {
	units, sum := r.amount.now()
	switch r.state() {
	case stock.Held:
		a.out.Held += sum
		for i, n := range units {
			a.sums[i].held += n
		}
	case stock.Sold:
		a.out.Sold += sum
		for i, n := range units {
			a.sums[i].sold += n
		}
	}
}

// overLimit reports whether a buyer has more than the limits allow.
func (a *auditor) overLimit(list []record) bool {
	taken, all := make([]int64, a.p.items()), int64(0)
	for i := range list {
		if st := list[i].state(); st == stock.Held || st == stock.Sold {
			units, sum := list[i].amount.now()
			all += sum
			for j, n := range units {
				taken[j] += n
			}
		}
	}
	t := a.terms
	over := t.Limit > 0 && all > t.Limit
	for i, item := range t.Items {
		over = over || item.Limit > 0 && taken[i] > item.Limit
	}
	return over
}

// readAgain reads the suspects once more, the terms and the counts with them, and
// reports what is still wrong.
func (a *auditor) readAgain(ctx context.Context) error {
	names := append(make([]string, 0, len(a.suspects)+2), "t", "m")
	for buyer := range a.suspects {
		names = append(names, buyer)
	}
	got, err := a.s.client.HMGet(ctx, a.p.keys[poolKey], names...).Result()
	if err != nil {
		return unknown("read suspects", err)
	}
	now, err := readStanding(a.p, toString(got[0]), toString(got[1]))
	if err != nil {
		return err
	}
	a.terms = &now.terms
	if a.out.Changed { // there are no sums that the counts have to fit
		a.out.Levels = now.levels
	}
	for i, buyer := range names[2:] {
		if err := a.judge(ctx, buyer, toString(got[i+2])); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) judge(ctx context.Context, buyer, field string) error {
	list, ok := parseRecords(a.p, buyer, field)
	if !ok {
		a.fault(stock.Fault{Kind: stock.FaultRecord, Buyer: []byte(buyer), Text: fmt.Sprintf("the field %x can't be read", buyer)})
		return nil
	}
	if a.overLimit(list) {
		a.fault(stock.Fault{Kind: stock.FaultLimit, Buyer: []byte(buyer), Text: fmt.Sprintf("the buyer %x has more than the limit", buyer)})
	}
	for i := range list {
		stray, err := a.stray(ctx, &list[i])
		if err != nil {
			return err
		}
		if stray {
			a.fault(stock.Fault{Kind: stock.FaultStray, ID: list[i].id, Store: stock.Held, Text: "nothing ends this hold: " + list[i].text})
		}
	}
	if a.s.ledger == nil {
		return nil
	}
	return a.judgeByLedger(ctx, buyer, list)
}

// stray reports whether no member of the index names the hold. One that is
// past its time may stand later there, if the ledger was undecided about it.
func (a *auditor) stray(ctx context.Context, r *record) (bool, error) {
	if r.letter != 'h' {
		return false, nil
	}
	for offset := int64(0); ; offset += auditPage {
		page, err := a.s.client.ZRangeByScore(ctx, a.p.keys[dueKey], &redis.ZRangeBy{
			Min: strconv.FormatInt(r.at, 10), Max: strconv.FormatInt(max(r.at, a.clock.Add(time.Hour).UnixMilli()), 10),
			Offset: offset, Count: auditPage,
		}).Result()
		if err != nil {
			return false, unknown("read index", err)
		}
		for _, member := range page {
			for _, id := range memberIDs(member) {
				if id == string(r.id[8:]) {
					return false, nil
				}
			}
		}
		if len(page) < auditPage {
			return true, nil
		}
	}
}

// compareCounts reports counts that are not the sums, where both are of one
// moment.
func (a *auditor) compareCounts() {
	if a.out.Changed {
		return
	}
	_, counts, err := parseCounts(a.now.counts)
	if err != nil {
		return
	}
	for i, item := range itemsOf(&a.now.terms.Pool) {
		c, sum := counts[i], a.sums[i]
		if c.held != sum.held || c.sold != sum.sold || c.free != item.Total-sum.held-sum.sold {
			a.fault(stock.Fault{Kind: stock.FaultCount, Text: fmt.Sprintf(
				"of %q the counts are %d free, %d held, %d sold; the reservations are %d held, %d sold of %d",
				item.SKU, c.free, c.held, c.sold, sum.held, sum.sold, item.Total)})
		}
	}
}
