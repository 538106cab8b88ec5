package app_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firstcome/firstcome/examples/shop/app"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqldead"
)

// withLetter is a shop in which one event of nobody's order was given up.
func withLetter(t *testing.T) (s *shop, letters *sqldead.Store, seq int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shop.db")
	s = start(t, func(c *app.Config) { c.DB = "sqlite://" + path })
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	letters, err = sqldead.New(db, "sqlite", nil)
	if err != nil {
		t.Fatal(err)
	}
	l := worker.Letter{
		Handler: "order.checkout", Topic: "orders", EventID: "event-1", Key: "k", Payload: []byte(`{"secret":true}`), Class: worker.ClassPanic,
		Err: "broken", Attempts: 10, Origin: worker.Origin{Topic: "orders", Partition: "3", Offset: "120"},
	}
	if err := letters.Put(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	stored, err := letters.Find(t.Context(), "order.checkout", "event-1")
	if err != nil {
		t.Fatal(err)
	}
	return s, letters, stored.Seq
}

func TestTheAuditNamesWhatWasGivenUp(t *testing.T) {
	s, letters, seq := withLetter(t)
	want := fmt.Sprintf("given up: worker/%d, panic", seq)
	for _, url := range []string{s.URL(), s.AdminURL()} {
		got := send(t, "GET", url+"/audit", "")
		a := audit(t, url)
		if a.OK || a.Settled || a.Events.Dead != 1 || len(a.Violations) != 1 || a.Violations[0] != want || strings.Contains(got.body, "secret") {
			t.Errorf("books: %+v", a)
		}
	}
	if err := letters.Drop(t.Context(), seq); err != nil {
		t.Fatal(err)
	}
	if a := settled(t, s.URL(), 0); !a.OK || a.Events.Dropped != 1 {
		t.Errorf("books: %+v", a)
	}
}

func TestLettersAreListedReadRequeuedAndDroppedOnTheAdminAddress(t *testing.T) {
	s, letters, seq := withLetter(t)
	list := send(t, "GET", s.AdminURL()+"/letters/worker?class=panic&limit=5", "")
	var page struct {
		Letters []struct {
			ID       int64  `json:"id"`
			EventID  string `json:"event_id"`
			State    string `json:"state"`
			Payload  []byte `json:"payload"`
			Attempts int    `json:"attempts"`
		} `json:"letters"`
	}
	if err := json.Unmarshal([]byte(list.body), &page); err != nil || list.status != http.StatusOK || len(page.Letters) != 1 ||
		page.Letters[0].ID != seq || page.Letters[0].State != "dead" || page.Letters[0].Payload != nil {
		t.Errorf("list: %d %s", list.status, list.body)
	}
	one := fmt.Sprintf("%s/letters/worker/%d", s.AdminURL(), seq)
	if got := send(t, "GET", one, ""); got.status != http.StatusOK || got.field("payload") != "eyJzZWNyZXQiOnRydWV9" {
		t.Errorf("read: %d %s", got.status, got.body)
	}
	// It is nobody's order, so the handler gives it up again.
	if got := send(t, "POST", one+"/requeue", ""); got.status != http.StatusNoContent {
		t.Fatalf("requeue: %d %s", got.status, got.body)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l, err := letters.Letter(t.Context(), seq)
		if err == nil && l.State == worker.LetterDead && l.Attempts > 10 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %+v, %v", l, err)
		}
	}
	if got := send(t, "POST", one+"/drop", ""); got.status != http.StatusNoContent {
		t.Errorf("drop: %d %s", got.status, got.body)
	}
	if got := send(t, "POST", one+"/drop", ""); got.status != http.StatusNotFound || got.field("type") != "urn:firstcome:shop:no-letter" {
		t.Errorf("drop again: %d %s", got.status, got.body)
	}
	if got := send(t, "GET", s.AdminURL()+"/letters/outbox", ""); got.status != http.StatusOK || !strings.Contains(got.body, `{"letters":[]}`) {
		t.Errorf("outbox: %d %s", got.status, got.body)
	}
}

func TestLettersAreKeptFromStrangers(t *testing.T) {
	s, letters, seq := withLetter(t)
	one := fmt.Sprintf("%s/letters/worker/%d", s.AdminURL(), seq)
	for name, c := range map[string]struct {
		method, url string
		headers     []string
		host        string
		status      int
	}{
		"public list":     {"GET", s.URL() + "/letters/worker", nil, "", 404},
		"public drop":     {"POST", s.URL() + fmt.Sprintf("/letters/worker/%d/drop", seq), nil, "", 404},
		"drop by GET":     {"GET", one + "/drop", nil, "", 405},
		"another site":    {"POST", one + "/drop", []string{"Origin", "https://evil.example"}, "", 403},
		"cross-site":      {"POST", one + "/drop", []string{"Sec-Fetch-Site", "cross-site"}, "", 403},
		"rebound name":    {"POST", one + "/drop", nil, "evil.example:8081", 403},
		"rebound reading": {"GET", one, nil, "evil.example:8081", 403},
		"bad ID":          {"POST", s.AdminURL() + "/letters/worker/x/drop", nil, "", 400},
		"negative after":  {"GET", s.AdminURL() + "/letters/worker?after=-1", nil, "", 400},
		"unknown source":  {"GET", s.AdminURL() + "/letters/spam", nil, "", 404},
		"unknown letter":  {"POST", s.AdminURL() + "/letters/outbox/7/requeue", nil, "", 404},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			r.Host = c.host
		}
		for i := 0; i+1 < len(c.headers); i += 2 {
			r.Header.Set(c.headers[i], c.headers[i+1])
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", name, res.StatusCode, c.status)
		}
	}
	if l, err := letters.Letter(t.Context(), seq); err != nil || l.State != worker.LetterDead {
		t.Errorf("something changed: %+v, %v", l, err)
	}
}
