package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// fakeShop answers as the shop does, from memory, with one deliberate fault.
type fakeShop struct {
	stock int
	fault fault

	mu      sync.Mutex
	answers map[string]fakeAnswer // by key
	orders  []*fakeOrder
	byID    map[string]*fakeOrder
	asked   int // POST /orders
	audits  int // GET /audit
	looks   int // of these, with orders
}

// fault is what is wrong with a fakeShop.
type fault string

const (
	noFault       fault = ""
	oversells     fault = "sells three units too many"
	ordersTwice   fault = "forgets keys and makes a second order"
	changesItsNo  fault = "answers sold-out to a key that has an order"
	sharesOrders  fault = "tells two buyers of one order"
	strands       fault = "never settles one unit"
	losesEvents   fault = "does not handle one event"
	losesOrders   fault = "answers 201 and keeps no order"
	makesUntold   fault = "makes an order that no buyer asked for"
	chargesTwice  fault = "charges a buyer twice"
	refusesEarly  fault = "answers sold-out with five units left"
	admitsFaults  fault = "lists a violation"
	miscounts     fault = "has stock figures that do not add up"
	breaks        fault = "answers 500 now and then"
	sellsNothing  fault = "does not know what it sells"
	neverAnswers  fault = "never answers the last buyers"
	hasNoBooks    fault = "has no audit"
	isBusy        fault = "answers 503, 429 and in-flight first; no fault of the books"
	hangsUp       fault = "closes connections, with and without an answer; no fault of the books"
	declinesCards fault = "cancels every tenth order; no fault of the books"
)

type fakeOrder struct {
	id, buyer, status string
}

type fakeAnswer struct {
	status int
	body   string
}

func newFakeShop(t *testing.T, stock int, fault fault) (*fakeShop, *httptest.Server) {
	t.Helper()
	shop := &fakeShop{stock: stock, fault: fault, answers: make(map[string]fakeAnswer), byID: make(map[string]*fakeOrder)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", shop.purchase)
	mux.HandleFunc("GET /orders/{id}", shop.order)
	mux.HandleFunc("GET /audit", shop.audit)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return shop, server
}

func problemAnswer(status int, kind string) fakeAnswer {
	return fakeAnswer{status, fmt.Sprintf(`{"type":"urn:firstcome:%s","status":%d}`, kind, status)}
}

func (s *fakeShop) purchase(w http.ResponseWriter, r *http.Request) {
	var body struct {
		SKU      string `json:"sku"`
		Quantity int    `json:"quantity"`
	}
	key, buyer := r.Header.Get("Idempotency-Key"), r.Header.Get("X-Buyer")
	if json.NewDecoder(r.Body).Decode(&body) != nil || body.SKU != "ticket" || body.Quantity != 1 || key == "" || buyer == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.asked++
	n := s.asked
	a, again := s.answers[key]
	if !again || a.status == http.StatusCreated && s.fault == ordersTwice {
		a = s.sell(buyer)
		s.answers[key] = a
	} else if a.status == http.StatusCreated && s.fault == changesItsNo {
		a = problemAnswer(409, "sold-out")
	}
	s.mu.Unlock()
	if again {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	switch s.fault {
	case neverAnswers:
		if n > 250 {
			<-r.Context().Done()
			return
		}
	case hangsUp:
		if n%10 == 0 {
			panic(http.ErrAbortHandler) // the connection ends without an answer
		}
		if n%5 == 0 {
			w.Header().Set("Connection", "close")
		}
	case isBusy:
		a = s.busy(w, n, a)
	case breaks:
		if n%50 == 0 {
			a = problemAnswer(500, "internal")
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, _ = w.Write([]byte(a.body))
}

// busy puts some of the first answers off.
func (s *fakeShop) busy(w http.ResponseWriter, n int, a fakeAnswer) fakeAnswer {
	if n > 200 { // the last ones would wait long, one after the other
		return a
	}
	switch n % 7 {
	case 1:
		return problemAnswer(503, "unavailable")
	case 2:
		return fakeAnswer{429, `{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded"}`}
	case 3:
		w.Header().Set("Retry-After", "0")
		return problemAnswer(409, "in-flight")
	}
	return a
}

// sell decides one purchase. Callers hold the lock.
func (s *fakeShop) sell(buyer string) fakeAnswer {
	limit := s.stock
	switch s.fault {
	case oversells:
		limit += 3
	case refusesEarly:
		limit -= 5
	case sellsNothing:
		return problemAnswer(404, "unknown-sku")
	}
	if len(s.orders) >= limit {
		return problemAnswer(409, "sold-out")
	}
	o := &fakeOrder{id: fmt.Sprintf("order-%d", len(s.orders)), buyer: buyer, status: "held"}
	if s.fault == sharesOrders && len(s.orders) == 1 {
		o.id = "order-0"
	}
	if s.fault == losesOrders && len(s.orders) == 7 {
		s.orders = append(s.orders, &fakeOrder{status: "lost"})
	} else {
		s.orders = append(s.orders, o)
		s.byID[o.id] = o
	}
	return fakeAnswer{201, fmt.Sprintf(`{"order_id":%q,"reservation_id":"r","status":"held"}`, o.id)}
}

func (s *fakeShop) order(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.byID[r.PathValue("id")]
	if o == nil || o.buyer != r.Header.Get("X-Buyer") {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = fmt.Fprintf(w, `{"order_id":%q,"sku":"ticket","quantity":1,"status":%q}`, o.id, o.status)
}

// audit settles half of what is open each time it is asked, and shows the books.
func (s *fakeShop) audit(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.audits++
	if s.fault == hasNoBooks && s.audits > 1 { // the first look is before the bell
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.settleHalf()
	var b books
	for _, o := range s.orders {
		switch o.status {
		case "held":
			b.Orders.Held++
		case "confirmed":
			b.Orders.Confirmed++
		case "cancelled":
			b.Orders.Cancelled++
		}
	}
	if s.fault == makesUntold && len(s.orders) > 0 {
		b.Orders.Confirmed++
	}
	b.Stock.Total, b.Stock.Held, b.Stock.Sold = int64(s.stock), b.Orders.Held, b.Orders.Confirmed
	b.Stock.Free = b.Stock.Total - b.Stock.Held - b.Stock.Sold
	b.Events.Written = b.orders()
	b.Events.Relayed, b.Events.Handled = b.Events.Written, b.Events.Written-b.Orders.Held
	b.Payments.Charged = b.Orders.Confirmed
	b.OK = true
	s.spoil(&b)
	if err := json.NewEncoder(w).Encode(b); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (s *fakeShop) spoil(b *books) {
	if len(s.orders) == 0 {
		return
	}
	switch s.fault {
	case losesEvents:
		b.Events.Handled--
	case chargesTwice:
		b.Payments.Charged++
	case miscounts:
		b.Stock.Free++
	case admitsFaults:
		b.OK, b.Violations = false, []violation{"charged o-1 twice"}
	}
}

// settleHalf leaves every other order held at the first look after the sale.
func (s *fakeShop) settleHalf() {
	for i, o := range s.orders {
		if o.status != "held" || s.fault == strands && i == 0 || s.looks == 0 && i%2 == 0 {
			continue
		}
		o.status = "confirmed"
		if s.fault == declinesCards && strings.HasSuffix(o.id, "3") {
			o.status = "cancelled"
		}
	}
	if len(s.orders) > 0 {
		s.looks++
	}
}
