package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// web is the public side of the shop.
type web struct {
	cfg     Config
	keeper  *idempotency.Keeper
	limiter ratelimit.Limiter
	counter *counter
	stock   *redisstock.Store
	orders  orders
	auditor *auditor
}

// handler lays out the routes. Around a purchase stand, outermost first: who
// comes after the sell-out is turned away, for one look at the key; then the rate
// limit; then the claim, so that a limited request leaves its key unused.
func (s *web) handler() http.Handler {
	limit := middleware.RateLimit(s.limiter, s.takes, middleware.FailClosed, nil)
	once := middleware.Idempotency(s.keeper, buyerOf, &middleware.IdempotencyOptions{
		Required: true, MaxBody: 64 << 10, BodyTimeout: 5 * time.Second, Turnaway: s.turnaway, Admission: limit,
	})
	mux := http.NewServeMux()
	mux.Handle("POST /orders", once(http.HandlerFunc(s.placeOrder)))
	mux.HandleFunc("GET /orders/{id}", s.showOrder)
	mux.HandleFunc("GET /stock/{sku}", s.showStock)
	mux.HandleFunc("GET /audit", s.auditor.serve)
	mux.HandleFunc("GET /{$}", s.page)
	return secure(mux)
}

// secure sets what every answer of the shop carries.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

var errNoBuyer = &middleware.Problem{
	Type: "urn:firstcome:shop:no-buyer", Title: "No buyer", Status: http.StatusUnauthorized,
	Detail: "Name yourself in the X-Buyer header. It stands in for real authentication.",
}

// buyerOf tells who sends the request. A real shop takes the buyer from a
// session or a token that it has checked, never from a bare header.
func buyerOf(r *http.Request) (string, error) {
	buyer := r.Header.Get("X-Buyer")
	if buyer == "" || len(buyer) > stock.MaxNameLength {
		return "", errNoBuyer
	}
	return buyer, nil
}

func (s *web) takes(r *http.Request) ([]ratelimit.Take, error) {
	buyer, err := buyerOf(r)
	if err != nil {
		return nil, err
	}
	limit := ratelimit.Limit{Name: "buyer", Quota: s.cfg.Rate, Window: time.Second}
	return []ratelimit.Take{{Limit: limit, Key: buyer, Cost: 1}}, nil
}

// purchase is the body of POST /orders.
type purchase struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

func badRequest(format string, args ...any) error {
	return &middleware.Problem{
		Type: "urn:firstcome:shop:bad-request", Title: "Bad request", Status: http.StatusBadRequest,
		Detail: fmt.Sprintf(format, args...),
	}
}

// readPurchase takes exactly one JSON object with the two fields.
func readPurchase(body io.Reader) (purchase, error) {
	var p purchase
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return p, err
		}
		return p, badRequest(`The body must be {"sku": "…", "quantity": 1}, quantity a whole number.`)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return p, badRequest("Something follows the JSON object.")
	}
	if p.Quantity < 1 || p.Quantity > stock.MaxQuantity {
		return p, badRequest("quantity must be 1 to 2^53-1.")
	}
	if p.SKU == "" || len(p.SKU) > stock.MaxNameLength {
		return p, badRequest("sku must have 1 to %d bytes.", stock.MaxNameLength)
	}
	return p, nil
}

// turnaway answers those who come too late without claiming their key: what
// this process remembers of the stock is enough for a first attempt.
func (s *web) turnaway(_ *http.Request, body []byte) error {
	p, err := readPurchase(bytes.NewReader(body))
	if err != nil {
		return nil //nolint:nilerr // the handler says what is wrong with it
	}
	return s.stock.Refused(p.SKU, p.Quantity)
}

func (s *web) placeOrder(w http.ResponseWriter, r *http.Request) {
	p, err := readPurchase(r.Body)
	if err != nil {
		middleware.WriteError(w, r, err)
		return
	}
	buyer, err := buyerOf(r)
	if err != nil {
		middleware.WriteError(w, r, err)
		return
	}
	claim, ok := idempotency.FromContext(r.Context())
	if !ok { // the route requires a key, so this is a fault of the wiring
		middleware.WriteError(w, r, errors.New("no claim"))
		return
	}
	o, err := s.counter.buy(r.Context(), claim, p.SKU, buyer, p.Quantity)
	if err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Location", "/orders/"+o.ID)
	writeJSON(w, http.StatusCreated, map[string]any{
		"order_id": o.ID, "reservation_id": o.Reservation, "status": o.Status, "expires_at": o.Expires,
	})
}

// fail answers with the problem that stands for err, and logs what is inside
// of those that are the shop's own fault.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	if middleware.ProblemOf(err).Status >= http.StatusInternalServerError {
		slog.ErrorContext(r.Context(), "shop: request failed", "path", r.URL.Path, "error", err)
	}
	middleware.WriteError(w, r, err)
}

func (s *web) showOrder(w http.ResponseWriter, r *http.Request) {
	buyer, err := buyerOf(r)
	if err != nil {
		middleware.WriteError(w, r, err)
		return
	}
	o, err := s.orders.get(r.Context(), r.PathValue("id"))
	if errors.Is(err, errNoOrder) || err == nil && o.Buyer != buyer {
		// Another buyer's order is no order: its existence is nobody's business.
		middleware.WriteError(w, r, &middleware.Problem{
			Type: "urn:firstcome:shop:unknown-order", Title: "Unknown order", Status: http.StatusNotFound,
		})
		return
	}
	if err != nil {
		fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"order_id": o.ID, "sku": o.SKU, "quantity": o.Quantity, "status": o.Status,
	})
}

func (s *web) showStock(w http.ResponseWriter, r *http.Request) {
	levels, err := s.stock.Levels(r.Context(), r.PathValue("sku"))
	if err != nil {
		fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, levels)
}

func (a *auditor) serve(w http.ResponseWriter, r *http.Request) {
	got, err := a.audit(r.Context())
	if err != nil {
		fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, got)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // the client has left, if it fails
}
