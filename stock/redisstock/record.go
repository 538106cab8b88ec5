package redisstock

import (
	"fmt"
	"strings"

	"github.com/firstcome/firstcome/stock"
)

// record is one reservation as a buyer's field has it.
type record struct {
	id     stock.ID
	letter byte
	text   string // "state amount,time;" as it stands there
	amount amount
	at     int64 // ms
}

func (r *record) state() stock.State { return stateOf(r.letter) }

// parseRecords reads a buyer's field; false where it can't all be read.
func parseRecords(p *pool, buyer, field string) ([]record, bool) {
	var list []record
	for field != "" {
		if len(field) < 18 {
			return list, false
		}
		body, rest, ok := strings.Cut(field[16:], ";")
		r := record{letter: field[16], text: body + ";"}
		said, at, comma := strings.Cut(body[1:], ",")
		am, err := parseAmount(said, p.items())
		if !ok || !comma || err != nil || r.state() == 0 {
			return list, false
		}
		r.amount, r.at = am, toInt(at)
		r.id = idOf(p, buyer+field[:16])
		list = append(list, r)
		field = rest
	}
	return list, true
}

// idOf puts the pool's part before the 28 bytes that its keys have of an ID.
func idOf(p *pool, rest string) stock.ID {
	var id stock.ID
	copy(id[:8], p.part[:])
	copy(id[8:], rest)
	return id
}

// buyerOf is the name of the field that an ID stands in.
func buyerOf(id stock.ID) string { b := id.BuyerPart(); return string(b[:]) }

// truth is the record that agrees with the ledger's entry: its letter and
// amount, or nothing where the ledger has none and the store has neither.
func truth(e *stock.Entry, r *record, p *pool) (letter byte, said string, err error) {
	switch e.State {
	case stock.Held:
		letter = 'h'
	case stock.Sold:
		letter = 's'
	case stock.Expired:
		letter = 'x'
	case stock.Returned:
		letter = 'r'
	default:
		letter = 'c'
	}
	if e.State == stock.Held || e.State == stock.Sold {
		said, err = entryAmount(e, p.opened)
		return letter, said, err
	}
	if r == nil {
		return 0, "", nil
	}
	said, _, _ = strings.Cut(r.text[1:], ",")
	return letter, said, nil
}

// agrees reports whether store and ledger say the same of a reservation. A hold
// may still be without an order. What has ended is the same as nothing.
func agrees(r *record, e *stock.Entry, p *pool) bool {
	mine := stock.State(0)
	if r != nil {
		mine = r.state()
	}
	switch {
	case mine == stock.Held:
		return e.State == 0 || e.State == stock.Held && sameAmount(r, e, p)
	case mine == stock.Sold:
		return e.State == stock.Sold && sameAmount(r, e, p)
	default:
		return e.State != stock.Held && e.State != stock.Sold
	}
}

func sameAmount(r *record, e *stock.Entry, p *pool) bool {
	said, err := entryAmount(e, p.opened)
	if err != nil {
		return false
	}
	mine, _, _ := strings.Cut(r.text[1:], ",")
	return mine == said
}

// differs says in words how store and ledger differ.
func differs(r *record, e *stock.Entry) string {
	mine := "nothing"
	if r != nil {
		mine = r.state().String() + " " + strings.TrimSuffix(r.text[1:], ";")
	}
	its := "nothing"
	if e.State != 0 {
		its = fmt.Sprintf("%v %d", e.State, e.Quantity)
	}
	return fmt.Sprintf("the store has %s, the ledger %s", mine, its)
}
