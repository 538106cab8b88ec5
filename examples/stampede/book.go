package main

import (
	"fmt"
	"sync"
	"time"
)

// book is what the buyers were told. It is the crowd's own record, kept apart
// from anything the shop says, and holds the answers to one buyer against each
// other.
type book struct {
	run    string
	locks  [64]sync.Mutex // by buyer
	buyers []buyer

	mu       sync.Mutex
	disputes int      // answers that cannot both be true
	examples []string // the first few
}

// buyer is the record of one buyer.
type buyer struct {
	order     string        // of the 201
	held      time.Duration // when the first 201 was read, since the bell
	no        string        // a refusal, if there was one
	noWrote   time.Duration // when the last refused request was written
	soldOut   bool          // a final no was told
	second    bool          // another order was told as well
	denied    bool          // the order and the refusals cannot all be true
	uncertain bool          // some send may have taken effect without a word
	open      int8          // sends without a final answer
}

const maxExamples = 5

func newBook(run string, users int, sends []send) *book {
	b := &book{run: run, buyers: make([]buyer, users)}
	for _, s := range sends {
		b.buyers[s.buyer].open++
	}
	return b
}

// record takes in an answer that ends a send. wrote and read are since the bell.
//
// Answers to one key must agree. Two orders are two purchases; a held unit and
// a final no cannot both be true, whichever came first; and once a 201 was read,
// everything written after it must hear the same 201. An all-held that was on
// its way beside the 201 is none of these: it was true when it was said.
func (b *book) record(id int32, a answer, wrote, read time.Duration) {
	lock := &b.locks[int(id)%len(b.locks)]
	lock.Lock()
	defer lock.Unlock()
	who := &b.buyers[id]
	who.open--
	who.hear(a, wrote, read)
	switch {
	case a.kind == kindHeld && a.order != who.order && !who.second:
		who.second = true
		b.dispute(id, "order "+who.order+" and order "+a.order)
	case who.order != "" && !who.denied && (who.soldOut || who.noWrote > who.held):
		who.denied = true
		b.dispute(id, "order "+who.order+" and "+who.no)
	}
}

// hear takes in one answer. Two connections may record in another order than
// they read in, so times are compared, not the order of calls.
func (who *buyer) hear(a answer, wrote, read time.Duration) {
	switch {
	case a.kind != kindHeld:
		who.no = a.name()
		who.noWrote = max(who.noWrote, wrote)
		who.soldOut = who.soldOut || a.kind == kindSoldOut
		who.uncertain = who.uncertain || a.kind == kindOther
	case who.order == "":
		who.order, who.held = a.order, read
	default:
		who.held = min(who.held, read)
	}
}

// giveUp ends a send without an answer.
func (b *book) giveUp(id int32) {
	lock := &b.locks[int(id)%len(b.locks)]
	lock.Lock()
	defer lock.Unlock()
	b.buyers[id].uncertain = true
}

func (b *book) dispute(id int32, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disputes++
	if len(b.examples) < maxExamples {
		b.examples = append(b.examples, fmt.Sprintf("%s heard %s", buyerName(b.run, int(id)), what))
	}
}

// told sums up what the buyers were told.
type told struct {
	Winners    int      `json:"winners"`    // hold an order
	Unanswered int      `json:"unanswered"` // at least one send without a final answer
	Uncertain  int      `json:"uncertain"`  // hold no order, but may have one without knowing
	SoldOut    int      `json:"sold_out"`   // heard a final no
	Second     int      `json:"second"`     // hold two orders
	Shared     int      `json:"shared"`     // hold an order that another buyer holds too
	Disputes   int      `json:"disputes"`
	Examples   []string `json:"examples,omitempty"`
}

// sum is called when nobody records any more.
func (b *book) sum() told {
	t := told{Disputes: b.disputes, Examples: b.examples}
	owners := make(map[string]int)
	for i := range b.buyers {
		who := &b.buyers[i]
		t.Unanswered += count(who.open > 0)
		t.SoldOut += count(who.soldOut)
		t.Second += count(who.second)
		if who.order == "" {
			t.Uncertain += count(who.open > 0 || who.uncertain)
			continue
		}
		t.Winners++
		if other, ok := owners[who.order]; ok {
			t.Shared++
			t.Examples = append(t.Examples, fmt.Sprintf("%s and %s hold the same order %s",
				buyerName(b.run, other), buyerName(b.run, i), who.order))
		}
		owners[who.order] = i
	}
	t.Examples = t.Examples[:min(len(t.Examples), 2*maxExamples)]
	return t
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// orders lists who holds which order, by buyer.
func (b *book) orders() map[int]string {
	orders := make(map[int]string)
	for i := range b.buyers {
		if b.buyers[i].order != "" {
			orders[i] = b.buyers[i].order
		}
	}
	return orders
}
