package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/firstcome/firstcome/examples/shop/app"
	"github.com/firstcome/firstcome/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// shop is a running shop and a client of it.
type shop struct {
	t *testing.T
	*app.App
	out bytes.Buffer
}

func start(t *testing.T, edit func(*app.Config)) *shop {
	t.Helper()
	cfg := app.Defaults()
	cfg.Addr, cfg.Admin = "127.0.0.1:0", "127.0.0.1:0"
	if edit != nil {
		edit(&cfg)
	}
	s := &shop{t: t}
	a, err := app.Start(t.Context(), cfg, &s.out)
	if err != nil {
		t.Fatal(err)
	}
	s.App = a
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

// answer is what came back, body read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) field(name string) string {
	var fields map[string]any
	_ = json.Unmarshal([]byte(a.body), &fields)
	text, _ := fields[name].(string)
	return text
}

func send(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(text)}
}

func (s *shop) buy(buyer, key string) answer {
	s.t.Helper()
	return send(s.t, "POST", s.URL()+"/orders", `{"sku":"ticket","quantity":1}`, "X-Buyer", buyer, "Idempotency-Key", key)
}

func audit(t *testing.T, url string) app.Audit {
	t.Helper()
	got := send(t, "GET", url+"/audit", "")
	var a app.Audit
	if err := json.Unmarshal([]byte(got.body), &a); err != nil || got.status != http.StatusOK {
		t.Fatalf("audit: %d %s", got.status, got.body)
	}
	return a
}

// settled waits until every order has ended, and returns the books.
func settled(t *testing.T, url string, orders int64) app.Audit {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		a := audit(t, url)
		if a.Settled && a.Events.Written >= orders {
			return a
		}
		if time.Now().After(deadline) {
			t.Fatalf("not settled: %+v", a)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("test ended")
		}
	}
}
