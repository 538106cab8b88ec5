package redisstock

import (
	"context"
	"fmt"

	"github.com/firstcome/firstcome/stock"
)

// entries compares what the ledger has with the store, and the ledger with
// itself. What the store has and the ledger not is found by asking for the
// store's reservations in turn.
func (a *auditor) entries(ctx context.Context) error {
	if a.s.ledger == nil {
		return nil
	}
	sku := a.p.opened.SKU
	before, err := a.s.ledger.Totals(ctx, sku)
	if err != nil {
		return fmt.Errorf("read the ledger's totals: %w", err)
	}
	var rows stock.Totals
	for after := (stock.ID{}); ; {
		page, err := a.s.ledger.Entries(ctx, sku, after, auditPage)
		if err != nil {
			return fmt.Errorf("read the ledger's entries: %w", err)
		}
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			if e.State == stock.Sold {
				rows.Sold += e.Quantity
			}
		}
		if err := a.findInStore(ctx, page); err != nil {
			return err
		}
		after = page[len(page)-1].ID
	}
	if err := a.findInLedger(ctx); err != nil {
		return err
	}
	totals, err := a.s.ledger.Totals(ctx, sku)
	if err != nil {
		return fmt.Errorf("read the ledger's totals: %w", err)
	}
	a.out.Ledger = &totals
	if before.Sold == totals.Sold && rows.Sold != totals.Sold {
		a.fault(stock.Fault{Kind: stock.FaultTotals, Text: fmt.Sprintf("the ledger counts %d units as sold, its rows have %d", totals.Sold, rows.Sold)})
	}
	if totals.Sold > totals.Total {
		a.fault(stock.Fault{Kind: stock.FaultTotals, Text: fmt.Sprintf("the ledger has sold %d of %d", totals.Sold, totals.Total)})
	}
	return nil
}

// findInStore suspects the buyers of entries with which the store disagrees.
func (a *auditor) findInStore(ctx context.Context, page []stock.Entry) error {
	buyers := make([]string, len(page))
	for i := range page {
		buyers[i] = buyerOf(page[i].ID)
	}
	fields, err := a.s.client.HMGet(ctx, a.p.keys[poolKey], buyers...).Result()
	if err != nil {
		return unknown("read reservations", err)
	}
	for i := range page {
		if !agrees(recordIn(a.p, buyers[i], toString(fields[i]), page[i].ID), &page[i], a.p) {
			a.suspect(buyers[i])
		}
	}
	return nil
}

// recordIn finds an ID in its buyer's field.
func recordIn(p *pool, buyer, field string, id stock.ID) *record {
	list, _ := parseRecords(p, buyer, field)
	for i := range list {
		if list[i].id == id {
			return &list[i]
		}
	}
	return nil
}

// findInLedger suspects the buyers of the store's reservations with which the
// ledger disagrees.
func (a *auditor) findInLedger(ctx context.Context) error {
	for cursor := uint64(0); ; {
		page, next, err := a.s.client.HScan(ctx, a.p.keys[poolKey], cursor, "", auditPage).Result()
		if err != nil {
			return unknown("scan", err)
		}
		var list []record
		for i := 0; i+1 < len(page); i += 2 {
			if len(page[i]) == 12 {
				some, _ := parseRecords(a.p, page[i], page[i+1])
				list = append(list, some...)
			}
		}
		if err := a.ask(ctx, list, func(r *record, _ *stock.Entry) { a.suspect(buyerOf(r.id)) }); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// ask asks the ledger about records, and tells those with which it disagrees.
func (a *auditor) ask(ctx context.Context, list []record, differs func(r *record, e *stock.Entry)) error {
	for len(list) > 0 {
		some := list[:min(len(list), auditPage)]
		list = list[len(some):]
		ids := make([]stock.ID, len(some))
		for i := range some {
			ids[i] = some[i].id
		}
		entries, err := a.s.ledger.Find(ctx, a.p.opened.SKU, ids)
		if err != nil {
			return fmt.Errorf("find in ledger: %w", err)
		}
		if len(entries) != len(ids) {
			return fmt.Errorf("redisstock: the ledger found %d of %d", len(entries), len(ids))
		}
		for i := range some {
			if !agrees(&some[i], &entries[i], a.p) {
				differs(&some[i], &entries[i])
			}
		}
	}
	return nil
}

// judgeByLedger reports where store and ledger differ about a buyer, also on
// what the store has forgotten.
func (a *auditor) judgeByLedger(ctx context.Context, buyer string, list []record) error {
	report := func(r *record, e *stock.Entry) {
		f := stock.Fault{Kind: stock.FaultLedger, ID: e.ID, Truth: e.State, Text: differs(r, e)}
		if r != nil {
			f.ID, f.Store = r.id, r.state()
		}
		a.fault(f)
	}
	if err := a.ask(ctx, list, report); err != nil {
		return err
	}
	first := idOf(a.p, buyer) // the IDs of one buyer begin alike
	for after := first; ; {
		page, err := a.s.ledger.Entries(ctx, a.p.opened.SKU, after, auditPage)
		if err != nil {
			return fmt.Errorf("read the ledger's entries: %w", err)
		}
		for i := range page {
			e := &page[i]
			if e.ID.BuyerPart() != first.BuyerPart() {
				return nil
			}
			if !has(list, e.ID) {
				report(nil, e)
			}
		}
		if len(page) < auditPage {
			return nil
		}
		after = page[len(page)-1].ID
	}
}

func has(list []record, id stock.ID) bool {
	for i := range list {
		if list[i].id == id {
			return true
		}
	}
	return false
}
