package app_test

import (
	"context"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/firstcome/firstcome/examples/shop/app"
)

func TestATicketIsBoughtConfirmedAndCharged(t *testing.T) {
	s := start(t, nil)
	got := s.buy("ann", "one")
	if got.status != http.StatusCreated || got.field("status") != "held" || got.header.Get("Location") != "/orders/"+got.field("order_id") {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if expires, err := time.Parse(time.RFC3339Nano, got.field("expires_at")); err != nil || time.Until(expires) < 4*time.Minute {
		t.Errorf("expires_at %q", got.field("expires_at"))
	}
	again := s.buy("ann", "one")
	if again.status != got.status || again.body != got.body || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the repeat: %d %s", again.status, again.body)
	}
	a := settled(t, s.URL(), 1)
	if !a.OK || a.Orders.Confirmed != 1 || a.Payments.Charged != 1 || a.Stock.Sold != 1 || a.Stock.Free != 999 || a.Events.Handled != 1 {
		t.Errorf("books: %+v", a)
	}
	order := send(t, "GET", s.URL()+got.header.Get("Location"), "", "X-Buyer", "ann")
	if order.status != http.StatusOK || order.field("status") != "confirmed" {
		t.Errorf("order: %d %s", order.status, order.body)
	}
	if other := send(t, "GET", s.URL()+got.header.Get("Location"), "", "X-Buyer", "bob"); other.status != http.StatusNotFound {
		t.Errorf("another buyer sees the order: %d %s", other.status, other.body)
	}
	if second := s.buy("ann", "two"); second.status != http.StatusConflict || second.field("type") != "urn:firstcome:buyer-limit" {
		t.Errorf("over the limit: %d %s", second.status, second.body)
	}
}

func TestADeclinedPaymentGivesTheUnitBack(t *testing.T) {
	s := start(t, func(c *app.Config) { c.PaymentFailures, c.Stock = 1, 1 })
	if got := s.buy("ann", "one"); got.status != http.StatusCreated {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	a := settled(t, s.URL(), 1)
	if !a.OK || a.Orders.Cancelled != 1 || a.Payments.Charged != 0 || a.Stock.Free != 1 {
		t.Errorf("books: %+v", a)
	}
	if got := s.buy("bob", "two"); got.status != http.StatusCreated {
		t.Errorf("the unit is not for sale again: %d %s", got.status, got.body)
	}
}

func TestASaleGoesOnAfterARestart(t *testing.T) {
	db := "sqlite://" + filepath.Join(t.TempDir(), "shop.db")
	edit := func(c *app.Config) { c.DB, c.Stock = db, 3 }
	first := start(t, edit)
	first.buy("ann", "one")
	settled(t, first.URL(), 1)
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The embedded Redis is empty now: the sale is rebuilt from the ledger.
	second := start(t, edit)
	if a := audit(t, second.URL()); !a.OK || a.Stock.Sold != 1 || a.Stock.Free != 2 {
		t.Errorf("books: %+v", a)
	}
	if got := second.buy("ann", "two"); got.field("type") != "urn:firstcome:buyer-limit" {
		t.Errorf("the limit is forgotten: %d %s", got.status, got.body)
	}
	if got := second.buy("ann", "one"); got.status != http.StatusCreated {
		t.Errorf("the first key, its record lost with Redis, finds no order: %d %s", got.status, got.body)
	}
	if a := settled(t, second.URL(), 1); !a.OK || a.Orders.Confirmed != 1 {
		t.Errorf("books: %+v", a)
	}
}

func TestTheGreetingNamesWhatIsEmbeddedAndHowToBuy(t *testing.T) {
	s := start(t, nil)
	for _, want := range []string{"for trying only", "SQLite", s.URL(), s.AdminURL(), "curl", "Idempotency-Key"} {
		if !strings.Contains(s.out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, s.out.String())
		}
	}
}

func TestAdminAnswersStandOnTheAdminAddressOnly(t *testing.T) {
	s := start(t, nil)
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if got := send(t, "GET", s.AdminURL()+path, ""); got.status != http.StatusOK {
			t.Errorf("admin %s: %d", path, got.status)
		}
		if got := send(t, "GET", s.URL()+path, ""); got.status != http.StatusNotFound {
			t.Errorf("public %s: %d", path, got.status)
		}
	}
	if a := audit(t, s.AdminURL()); !a.OK {
		t.Errorf("books: %+v", a)
	}
	if page := send(t, "GET", s.URL()+"/", ""); page.status != http.StatusOK || !strings.Contains(page.body, "1000 free") {
		t.Errorf("page: %d %s", page.status, page.body)
	}
	if got := send(t, "GET", s.URL()+"/stock/ticket", ""); got.status != http.StatusOK || !strings.Contains(got.body, `"free":1000`) {
		t.Errorf("stock: %d %s", got.status, got.body)
	}
}

func TestReadinessIsFalseBeforeTheListenersClose(t *testing.T) {
	s := start(t, nil)
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(context.WithoutCancel(t.Context())) }()
	for {
		ready := send(t, "GET", s.AdminURL()+"/readyz", "")
		if ready.status == http.StatusServiceUnavailable {
			break
		}
	}
	if got := send(t, "GET", s.URL()+"/stock/ticket", ""); got.status != http.StatusOK {
		t.Errorf("the public listener answers %d while the shop drains", got.status)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	s := start(t, func(c *app.Config) { c.Rate = 1000 })
	const good = `{"sku":"ticket","quantity":1}`
	long := strings.Repeat("k", 256)
	for i, test := range []struct {
		name    string
		body    string
		key     []string // header lines
		buyer   string
		status  int
		problem string
	}{
		{"no key", good, nil, "ann", 400, "urn:firstcome:key-missing"},
		{"empty key", good, []string{""}, "ann", 400, "urn:firstcome:key-malformed"},
		{"empty quoted key", good, []string{`""`}, "ann", 400, "urn:firstcome:key-malformed"},
		{"long key", good, []string{long}, "ann", 400, "urn:firstcome:key-malformed"},
		{"key with a space", good, []string{"a b"}, "ann", 400, "urn:firstcome:key-malformed"},
		{"key that is not ASCII", good, []string{"ключ"}, "ann", 400, "urn:firstcome:key-malformed"},
		{"key with parameters", good, []string{`"a";p=1`}, "ann", 400, "urn:firstcome:key-malformed"},
		{"two keys", good, []string{"a", "b"}, "ann", 400, "urn:firstcome:key-malformed"},
		{"no buyer", good, []string{"k"}, "", 401, "urn:firstcome:shop:no-buyer"},
		{"long buyer", good, []string{"k"}, strings.Repeat("b", 256), 401, "urn:firstcome:shop:no-buyer"},
		{"unknown SKU", `{"sku":"nothing","quantity":1}`, []string{"k"}, "ann", 404, "urn:firstcome:unknown-sku"},
		{"empty SKU", `{"sku":"","quantity":1}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"SKU of another type", `{"sku":7,"quantity":1}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"SKU with a NUL", `{"sku":"a\u0000b","quantity":1}`, []string{"k"}, "ann", 400, "urn:firstcome:invalid"},
		{"quantity missing", `{"sku":"ticket"}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"quantity 0", `{"sku":"ticket","quantity":0}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"quantity -1", `{"sku":"ticket","quantity":-1}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"quantity 2^53", `{"sku":"ticket","quantity":9007199254740992}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"quantity 2^64", `{"sku":"ticket","quantity":18446744073709551616}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"quantity 1e3", `{"sku":"ticket","quantity":1e3}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"quantity 1.5", `{"sku":"ticket","quantity":1.5}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"quantity as text", `{"sku":"ticket","quantity":"1e3"}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"quantity over the limit", `{"sku":"ticket","quantity":2}`, []string{"k"}, "ann", 409, "urn:firstcome:buyer-limit"},
		{"body of 10 MB", `{"sku":"` + strings.Repeat("x", 10<<20) + `"}`, []string{"k"}, "ann", 413, "urn:firstcome:body-too-large"},
		{"truncated JSON", `{"sku":"ticket","quan`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"no JSON", `sku=ticket`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"empty body", ``, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"an array", `[` + good + `]`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"two objects", good + good, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"unknown field", `{"sku":"ticket","quantity":1,"price":0}`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
		{"null", `null`, []string{"k"}, "ann", 400, "urn:firstcome:shop:bad-request"},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			var headers []string
			for _, k := range test.key {
				if k == "k" {
					k = "bad-" + strconv.Itoa(i)
				}
				headers = append(headers, "Idempotency-Key", k)
			}
			if test.buyer != "" {
				headers = append(headers, "X-Buyer", test.buyer)
			}
			got := send(t, "POST", s.URL()+"/orders", test.body, headers...)
			if got.status != test.status || got.field("type") != test.problem || got.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %d %s; want %d %s", got.status, got.body, test.status, test.problem)
			}
		})
	}
	if a := audit(t, s.URL()); !a.OK || a.Stock.Free != 1000 || a.Events.Written != 0 {
		t.Errorf("something changed: %+v", a)
	}
}

func TestAKeyUsedForAnotherPurchaseIsRefused(t *testing.T) {
	s := start(t, func(c *app.Config) { c.Limit = 4 })
	s.buy("ann", "one")
	got := send(t, "POST", s.URL()+"/orders", `{"sku":"ticket","quantity":2}`, "X-Buyer", "ann", "Idempotency-Key", "one")
	if got.status != http.StatusUnprocessableEntity || got.field("type") != "urn:firstcome:key-reused" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if bob := s.buy("bob", "one"); bob.status != http.StatusCreated || bob.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("another buyer's same key is not his own: %d %s", bob.status, bob.body)
	}
	if a := settled(t, s.URL(), 2); !a.OK || a.Orders.Units != 2 {
		t.Errorf("books: %+v", a)
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for flag, edit := range map[string]func(*app.Config){
		"-stock":            func(c *app.Config) { c.Stock = 0 },
		"-role":             func(c *app.Config) { c.Role = "boss" },
		"-role web":         func(c *app.Config) { c.Role = app.RoleWeb },
		"-broker":           func(c *app.Config) { c.Broker = "pigeon" },
		"-db":               func(c *app.Config) { c.DB = "mysql://x" },
		"-redis":            func(c *app.Config) { c.Redis = "http://x" },
		"-payment-failures": func(c *app.Config) { c.PaymentFailures = 2 },
		"-rate":             func(c *app.Config) { c.Rate = 0 },
	} {
		cfg := app.Defaults()
		cfg.Addr, cfg.Admin = "127.0.0.1:0", "127.0.0.1:0"
		edit(&cfg)
		if _, err := app.Start(t.Context(), cfg, t.Output()); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
