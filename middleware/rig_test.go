package middleware_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/middleware"
)

var hashKey = []byte("a test key of thirty-two bytes..")

// rig is one protected route.
type rig struct {
	*testing.T
	store   *breakable
	runs    atomic.Int64 // of the handler
	handler http.Handler
}

type rigOptions struct {
	store  idempotency.Store
	refuse bool // the policy, which is Rerun otherwise
	keeper *idempotency.Options
	route  *middleware.IdempotencyOptions
}

// newRig protects handler; its scope is the header X-Buyer.
func newRig(t *testing.T, o rigOptions, handler http.HandlerFunc) *rig {
	t.Helper()
	if o.store == nil {
		o.store = idemtest.NewMemory(nil)
	}
	g := &rig{T: t, store: &breakable{Store: o.store}}
	policy := idempotency.Rerun
	if o.refuse {
		policy = idempotency.Refuse(func(context.Context, *idempotency.Claim) (idempotency.Verdict, error) {
			return idempotency.StillUnknown(), nil
		})
	}
	if o.keeper == nil {
		o.keeper = &idempotency.Options{}
	}
	o.keeper.Logger = slog.New(slog.DiscardHandler)
	keeper, err := idempotency.New(g.store, hashKey, policy, o.keeper)
	if err != nil {
		t.Fatal(err)
	}
	route := middleware.IdempotencyOptions{}
	if o.route != nil {
		route = *o.route
	}
	if route.Logger == nil {
		route.Logger = o.keeper.Logger
	}
	g.handler = middleware.Idempotency(keeper, buyer, &route)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.runs.Add(1)
		handler(w, r)
	}))
	return g
}

func buyer(r *http.Request) (string, error) {
	if name := r.Header.Get("X-Buyer"); name != "" {
		return name, nil
	}
	return "", errors.New("no X-Buyer")
}

// request is POST /orders by buyer-1; edits change it.
func request(key, body string, edits ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body))
	r.Header.Set("X-Buyer", "buyer-1")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	for _, edit := range edits {
		edit(r)
	}
	return r
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func to(method, target string) func(*http.Request) {
	return func(r *http.Request) {
		other := httptest.NewRequest(method, target, nil)
		r.Method, r.URL, r.RequestURI = other.Method, other.URL, other.RequestURI
	}
}

func (g *rig) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, r)
	return w
}

func (g *rig) wantRuns(n int64) {
	g.Helper()
	if got := g.runs.Load(); got != n {
		g.Fatalf("the handler ran %d times, want %d", got, n)
	}
}

// wantAnswer checks status and body, and that the marker stands on replays only.
func (g *rig) wantAnswer(w *httptest.ResponseRecorder, status int, body string, replayed bool) {
	g.Helper()
	if w.Code != status || w.Body.String() != body {
		g.Fatalf("answer %d %q, want %d %q", w.Code, w.Body, status, body)
	}
	if marked := w.Header().Get("Idempotent-Replayed") == "true"; marked != replayed {
		g.Fatalf("Idempotent-Replayed is %v, want %v", marked, replayed)
	}
}

func (g *rig) wantProblem(w *httptest.ResponseRecorder, status int, name string) {
	g.Helper()
	wantProblem(g.T, w, status, "urn:firstcome:"+name)
}

func wantProblem(t *testing.T, w *httptest.ResponseRecorder, status int, kind string) {
	t.Helper()
	if w.Code != status || !strings.Contains(w.Body.String(), `"type":"`+kind+`"`) {
		t.Fatalf("answer %d %s, want %d %s", w.Code, w.Body, status, kind)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("Content-Type %q", got)
	}
	if w.Header().Get("Idempotent-Replayed") != "" {
		t.Fatal("a refusal is marked as a replay")
	}
}

// created answers 201 with the body that it read.
func created(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Location", "/orders/1")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(append([]byte("made "), body...))
}

var errDown = errors.New("store is down")

// breakable is a store whose steps can be made to fail.
type breakable struct {
	idempotency.Store
	claimDown, settleDown atomic.Bool
	extends, settles      atomic.Int64
}

func (b *breakable) Claim(ctx context.Context, req idempotency.ClaimRequest) (idempotency.Record, error) {
	if b.claimDown.Load() {
		return idempotency.Record{}, errDown
	}
	return b.Store.Claim(ctx, req)
}

func (b *breakable) Extend(ctx context.Context, h idempotency.Holder, t idempotency.Terms) error {
	b.extends.Add(1)
	return b.Store.Extend(ctx, h, t)
}

func (b *breakable) Settle(ctx context.Context, h idempotency.Holder, s idempotency.Settlement) error {
	b.settles.Add(1)
	if b.settleDown.Load() {
		return errDown
	}
	return b.Store.Settle(ctx, h, s)
}

const patience = 10 * time.Second
