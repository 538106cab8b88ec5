package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"
)

func TestPurchase_IsAWholeRequestPerBuyer(t *testing.T) {
	t.Parallel()
	at, err := parseTarget("http://127.0.0.1:8080/sale/")
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPurchase(at, "run1", `tick"et`)
	if err != nil {
		t.Fatal(err)
	}
	mine := p.clone()
	for _, buyer := range []int{0, 42, 99_999_999} {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(mine.of(buyer))))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != `{"sku":"tick\"et","quantity":1}` || r.ContentLength != int64(len(body)) {
			t.Errorf("body %s, %v", body, err)
		}
		if r.Method != http.MethodPost || r.URL.Path != "/sale/orders" || r.Host != "127.0.0.1:8080" {
			t.Errorf("%s %s to %s", r.Method, r.URL, r.Host)
		}
		if got := r.Header.Get("X-Buyer"); got != buyerName("run1", buyer) {
			t.Errorf("buyer %d is %q", buyer, got)
		}
	}
	mine.of(7)
	if got, want := string(mine.of(12345678)[mine.key-6:mine.key+9]), `"run1-12345678"`; got != want {
		t.Errorf("the key is %s, want %s", got, want)
	}
	if bytes.Contains(p.bytes, []byte("12345678")) {
		t.Error("a clone writes into the original")
	}
}

func TestPlan_SpreadsTheSharesOverTheCrowd(t *testing.T) {
	t.Parallel()
	const users, conns = 1000, 50
	sends := plan(users, conns, 0.1, 0.01)
	first, seen, cuts, twins := make(map[int32]int), make(map[int32]int), 0, [2]int{}
	for i, s := range sends {
		if _, ok := first[s.buyer]; !ok {
			first[s.buyer] = i
		} else if i-first[s.buyer] == 1 {
			twins[0]++
		} else { // conns buyers later, or at the end
			twins[1]++
			if i-first[s.buyer] < conns && i < users {
				t.Errorf("buyer %d is twice within %d sends", s.buyer, i-first[s.buyer])
			}
		}
		seen[s.buyer]++
		cuts += count(s.cut)
	}
	if len(sends) != 1100 || len(seen) != users || cuts != 10 {
		t.Errorf("%d sends of %d buyers, %d cut", len(sends), len(seen), cuts)
	}
	if twins != [2]int{50, 50} {
		t.Errorf("%d duplicates right behind the first, %d later", twins[0], twins[1])
	}
	if n := len(plan(10, 1000, 1, 1)); n != 20 {
		t.Errorf("all of 10 buyers twice are %d sends", n)
	}
}

func TestBook_HoldsAnswersAgainstEachOther(t *testing.T) {
	t.Parallel()
	held := func(order string) answer { return answer{kind: kindHeld, order: order} }
	no, wait := answer{kind: kindSoldOut}, answer{kind: kindAllHeld}
	type heard struct {
		a           answer
		wrote, read time.Duration
	}
	for name, c := range map[string]struct {
		heard    []heard
		disputes int
	}{
		"one order twice":                         {[]heard{{held("a"), 1, 2}, {held("a"), 3, 4}}, 0},
		"two orders":                              {[]heard{{held("a"), 1, 2}, {held("b"), 3, 4}}, 1},
		"sold-out twice":                          {[]heard{{no, 1, 2}, {no, 1, 3}}, 0},
		"sold-out after the order":                {[]heard{{held("a"), 1, 2}, {no, 3, 4}}, 1},
		"an order after sold-out":                 {[]heard{{no, 1, 2}, {held("a"), 3, 4}}, 1},
		"sold-out beside the order":               {[]heard{{held("a"), 1, 4}, {no, 2, 3}}, 1},
		"all-held, then the order":                {[]heard{{wait, 1, 2}, {held("a"), 3, 4}}, 0},
		"all-held beside the order":               {[]heard{{held("a"), 1, 3}, {wait, 2, 4}}, 0},
		"all-held after the order":                {[]heard{{held("a"), 1, 2}, {wait, 3, 4}}, 1},
		"all-held after the order, noted earlier": {[]heard{{wait, 3, 4}, {held("a"), 1, 2}}, 1},
		"two faults of one buyer":                 {[]heard{{held("a"), 1, 2}, {held("b"), 3, 4}, {no, 5, 6}, {no, 7, 8}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBook("run1", 1, make([]send, len(c.heard)))
			for _, h := range c.heard {
				b.record(0, h.a, h.wrote, h.read)
			}
			if got := b.sum(); got.Disputes != c.disputes || got.Unanswered != 0 {
				t.Errorf("%+v, want %d disputes", got, c.disputes)
			}
		})
	}
}

func TestBook_KnowsWhoHasNoAnswer(t *testing.T) {
	t.Parallel()
	b := newBook("run1", 4, []send{{buyer: 0}, {buyer: 0}, {buyer: 1}, {buyer: 2}, {buyer: 3}})
	b.record(0, answer{kind: kindHeld, order: "a"}, 1, 2)
	b.record(1, answer{kind: kindOther, label: "500"}, 1, 2)
	b.record(2, answer{kind: kindSoldOut}, 1, 2)
	b.giveUp(3)
	got := b.sum()
	if got.Winners != 1 || got.Unanswered != 2 || got.Uncertain != 2 || got.SoldOut != 1 {
		t.Errorf("%+v", got)
	}
}

func TestSpread_IsExact(t *testing.T) {
	t.Parallel()
	all := make([]time.Duration, 0, 1000)
	for i := range 1000 {
		all = append(all, time.Duration((i*7)%1000+1)) // 1 to 1,000, shuffled
	}
	if got, want := spreadOf(all), (spread{500, 950, 990, 1000}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := spreadOf([]time.Duration{7}), (spread{7, 7, 7, 7}); got != want {
		t.Errorf("of one: %v", got)
	}
	if got := spreadOf(nil); got != (spread{}) {
		t.Errorf("of none: %v", got)
	}
}

func TestPause_IsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tries      uint16
		retryAfter time.Duration
		least      time.Duration
	}{
		{0, 0, firstPause}, {2, 0, 4 * firstPause}, {maxTries, 0, maxPause}, {0, time.Second, time.Second}, {0, time.Hour, maxPause},
	} {
		for range 100 {
			if got := pause(c.tries, c.retryAfter); got < c.least || got > c.least+c.least/5+1 {
				t.Errorf("after %d tries and %v: %v", c.tries, c.retryAfter, got)
			}
		}
	}
}

func TestCrowd_AnswersEverySend(t *testing.T) {
	t.Parallel()
	url, stop, err := startBare()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	at, err := parseTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCrowd(config{users: 500, conns: 10, duplicates: 0.1, cut: 0.1, sku: "ticket"}, at, "run1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := c.run(ctx, func(*crowd) func() { return func() {} })
	if err != nil || out.interrupted || c.tally.answered() != 550 || len(out.samples) != 550 {
		t.Errorf("%v, %d of 550 answered, %d samples", err, c.tally.answered(), len(out.samples))
	}
	if out.elapsed <= 0 || c.tally.cuts.Load() != 50 {
		t.Errorf("took %v, %d cut", out.elapsed, c.tally.cuts.Load())
	}
}
