package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// evidence is everything that the judgement stands on.
type evidence struct {
	before, after books
	settled       bool
	auditErr      error // the books could not be read
	told          told
	allHeld       int64            // answers "all held"
	unexpected    map[string]int64 // answers that nobody should get
	lookup        lookup
	cutShort      string // why the crowd did not finish, if so
}

// verdict is the judgement. Sold, Buyers, Written and Handled are of this run;
// the shop may have sold before.
type verdict struct {
	OK         bool     `json:"ok"`
	Problems   []string `json:"problems,omitempty"`
	Sold       int64    `json:"sold"`
	Buyers     int64    `json:"buyers"`
	Oversold   int64    `json:"oversold"`
	Stranded   int64    `json:"stranded"`
	Duplicates int64    `json:"duplicates"`
	Written    int64    `json:"events_written"`
	Handled    int64    `json:"events_handled"`
}

// line is the one line that a run ends with.
func (v verdict) line() string {
	figures := fmt.Sprintf("%d sold to %d buyers, %d oversold, %d stranded, %d duplicates, events %d written %d handled",
		v.Sold, v.Buyers, v.Oversold, v.Stranded, v.Duplicates, v.Written, v.Handled)
	if v.OK {
		return "AUDIT OK: " + figures
	}
	return "AUDIT FAILED: " + strings.Join(v.Problems, "; ") + " (" + figures + ")"
}

// judge holds what the buyers were told, what the books say and what is known
// of each order against each other.
func judge(e evidence) verdict {
	if e.auditErr != nil {
		return blind(e)
	}
	after, before := e.after, e.before
	v := verdict{
		Sold:     after.Stock.Sold - before.Stock.Sold,
		Buyers:   int64(e.lookup.Confirmed),
		Oversold: max(0, after.Stock.Sold+after.Stock.Held-after.Stock.Total, after.Orders.Confirmed+after.Orders.Held-after.Stock.Total),
		Stranded: max(0, after.Stock.Total-after.Stock.Free-after.Stock.Sold),
		Written:  after.Events.Written - before.Events.Written,
		Handled:  after.Events.Handled - before.Events.Handled,
	}
	p := &v.Problems
	judgeAnswers(p, e)
	judgeStock(p, e, &v)
	judgeOrders(p, e, &v)
	judgeEvents(p, e)
	if !after.OK {
		problem(p, len(after.Violations) == 0, "the shop's own audit is not ok")
	}
	for _, violation := range after.Violations {
		problem(p, true, "the shop says: %s", violation)
	}
	v.OK = len(v.Problems) == 0
	return v
}

// blind judges without the books.
func blind(e evidence) verdict {
	v := verdict{}
	judgeAnswers(&v.Problems, e)
	problem(&v.Problems, true, "%v", e.auditErr)
	return v
}

// problem notes a problem if there is one.
func problem(problems *[]string, there bool, format string, args ...any) {
	if there {
		*problems = append(*problems, fmt.Sprintf(format, args...))
	}
}

// judgeAnswers looks at what the buyers heard alone.
func judgeAnswers(p *[]string, e evidence) {
	t := e.told
	problem(p, e.cutShort != "", "%s", e.cutShort)
	problem(p, t.Unanswered > 0, "%d buyers without an answer", t.Unanswered)
	for _, label := range slices.Sorted(maps.Keys(e.unexpected)) {
		problem(p, true, "%d unexpected answers %s", e.unexpected[label], label)
	}
	problem(p, t.Disputes > 0, "%d buyers heard answers that disagree", t.Disputes)
	problem(p, t.Shared > 0, "%d buyers hold an order that is another's too", t.Shared)
	problem(p, t.Disputes+t.Shared > 0 && len(t.Examples) > 0, "such as: %s", strings.Join(t.Examples, ", "))
}

// judgeStock looks at the stock's sums.
func judgeStock(p *[]string, e evidence, v *verdict) {
	s := e.after.Stock
	problem(p, v.Oversold > 0, "%d units sold beyond the stock of %d", v.Oversold, s.Total)
	problem(p, s.Free+s.Held+s.Sold != s.Total, "%d free + %d held + %d sold is not %d", s.Free, s.Held, s.Sold, s.Total)
	problem(p, s.Held > 0, "%d units are still held", s.Held)
	problem(p, s.Free < 0, "%d units are free", s.Free)
	// A final no is final: with units left it was a lie.
	problem(p, s.Free > 0 && e.told.SoldOut > 0, "%d units are free, and %d buyers heard sold-out", s.Free, e.told.SoldOut)
	if s.Free > 0 && e.told.SoldOut > 0 {
		v.Stranded += s.Free
	}
	problem(p, e.told.Winners == 0 && e.before.Stock.Free > 0 && e.allHeld > 0,
		"%d units were free, and nobody was sold one", e.before.Stock.Free)
}

// judgeOrders looks at orders, payments and buyers. Every buyer wants one unit,
// so orders, units and buyers are the same number.
func judgeOrders(p *[]string, e evidence, v *verdict) {
	after, told := e.after, int64(e.told.Winners+e.told.Second-e.told.Shared)
	made := after.orders() - e.before.orders()
	problem(p, made < told, "buyers hold %d orders, and the shop has %d", told, made)
	// A buyer without a clear answer may have an order without knowing.
	unknown := max(0, made-told-int64(e.told.Uncertain))
	problem(p, unknown > 0, "the shop has %d orders that no buyer was told of", unknown)

	problem(p, after.Orders.Held > 0, "%d orders are still held", after.Orders.Held)
	problem(p, after.Orders.Confirmed != after.Stock.Sold, "%d orders are confirmed, and %d units sold", after.Orders.Confirmed, after.Stock.Sold)
	problem(p, after.Payments.Charged != after.Orders.Confirmed, "%d payments are charged, and %d orders confirmed", after.Payments.Charged, after.Orders.Confirmed)

	l := e.lookup
	problem(p, l.Wrong > 0, "%d orders that buyers hold are not there: %s", l.Wrong, strings.Join(l.Examples, ", "))
	confirmed := after.Orders.Confirmed - e.before.Orders.Confirmed
	problem(p, l.Wrong == 0 && e.told.Uncertain == 0 && e.told.Second == 0 && e.told.Shared == 0 && int64(l.Confirmed) != confirmed,
		"%d buyers hold a confirmed order, and the books have %d", l.Confirmed, confirmed)
	v.Duplicates = int64(e.told.Second+e.told.Shared) + unknown + max(0, after.Payments.Charged-after.Orders.Confirmed)
}

// judgeEvents looks for events that were lost or are still on their way.
func judgeEvents(p *[]string, e evidence) {
	events := e.after.Events
	problem(p, events.Handled != events.Written, "%d events written, and %d handled", events.Written, events.Handled)
	problem(p, events.Relayed != events.Written, "%d events written, and %d relayed", events.Written, events.Relayed)
	made := e.after.orders() - e.before.orders()
	written := events.Written - e.before.Events.Written
	problem(p, written < made, "%d orders, and %d events written", made, written)
	problem(p, !e.settled, "the orders did not settle in time")
}
