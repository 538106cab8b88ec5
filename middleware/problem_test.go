package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/stock"
)

func TestWriteError_MapsEachErrorToOneAnswer(t *testing.T) {
	cases := []struct {
		err    error
		status int
		kind   string
		retry  bool
		member string // name=value
	}{
		{middleware.ErrKeyMissing, 400, "urn:firstcome:key-missing", false, ""},
		{middleware.ErrKeyMalformed, 400, "urn:firstcome:key-malformed", false, ""},
		{&idempotency.InFlightError{}, 409, "urn:firstcome:in-flight", true, ""},
		{idempotency.ErrMismatch, 422, "urn:firstcome:key-reused", false, ""},
		{&stock.MismatchError{Field: "quantity"}, 422, "urn:firstcome:key-reused", false, "field=quantity"},
		{idempotency.ErrUnknown, 409, "urn:firstcome:outcome-unknown", false, ""},
		{idempotency.ErrNotKept, 409, "urn:firstcome:result-not-kept", false, ""},
		{idempotency.ErrCorrupt, 500, "urn:firstcome:record-unreadable", false, ""},
		{idempotency.ErrUnavailable, 503, "urn:firstcome:unavailable", true, ""},
		{ratelimit.ErrUnavailable, 503, "urn:firstcome:unavailable", true, ""},
		{stock.ErrFenced, 503, "urn:firstcome:unavailable", true, ""},
		{stock.ErrBusy, 503, "urn:firstcome:unavailable", true, ""},
		{stock.ErrJournalFull, 503, "urn:firstcome:unavailable", true, ""},
		{stock.ErrUnknown, 503, "urn:firstcome:unavailable", true, ""},
		{stock.ErrSoldOut, 409, "urn:firstcome:sold-out", false, ""},
		{&stock.AllHeldError{RetryAfter: 90 * time.Second}, 409, "urn:firstcome:all-held", true, ""},
		{stock.ErrAllHeld, 409, "urn:firstcome:all-held", true, ""},
		{&stock.LimitError{Remaining: 1}, 409, "urn:firstcome:buyer-limit", false, "remaining=1"},
		{&stock.NotOpenError{RetryAfter: time.Hour}, 409, "urn:firstcome:not-open", true, ""},
		{stock.ErrClosed, 409, "urn:firstcome:closed", false, ""},
		{stock.ErrTooLate, 409, "urn:firstcome:too-late", false, ""},
		{stock.ErrLate, 409, "urn:firstcome:too-late", false, ""},
		{stock.ErrRetired, 409, "urn:firstcome:closed", false, ""},
		{&stock.VersionError{Version: 3}, 409, "urn:firstcome:version", false, "version=3"},
		{&stock.OverError{By: 100}, 409, "urn:firstcome:in-use", false, "over=100"},
		{&stock.ItemError{SKU: "b", Err: stock.ErrSoldOut}, 409, "urn:firstcome:sold-out", false, "sku=b"},
		{&stock.ItemError{SKU: "b", Err: &stock.AllHeldError{RetryAfter: time.Minute}}, 409, "urn:firstcome:all-held", true, "sku=b"},
		{stock.ErrUnknownSKU, 404, "urn:firstcome:unknown-sku", false, ""},
		{&http.MaxBytesError{Limit: 1}, 413, "urn:firstcome:body-too-large", false, ""},
		{stock.ErrInvalid, 400, "urn:firstcome:invalid", false, ""},
		{context.DeadlineExceeded, 503, "urn:firstcome:unavailable", true, ""},
		{errors.New("secret"), 500, "urn:firstcome:internal", false, ""},
		{&middleware.Problem{Type: "urn:shop:x", Title: "X", Status: 418, Extra: map[string]any{"a": "b"}}, 418, "urn:shop:x", false, "a=b"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprint(c.kind, " ", c.err), func(t *testing.T) {
			w := httptest.NewRecorder()
			w.Header().Set("Content-Length", "7")
			middleware.WriteError(w, request("", ""), fmt.Errorf("place order: secret: %w", c.err))
			wantProblem(t, w, c.status, c.kind)
			if (w.Header().Get("Retry-After") != "") != c.retry || w.Header().Get("Content-Length") != "" {
				t.Fatalf("headers %v", w.Header())
			}
			var body map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			want := 3
			if c.member != "" {
				want = 4
			}
			if body["title"] == "" || body["status"] != float64(c.status) || len(body) != want {
				t.Fatalf("body %s", w.Body)
			}
			if name := c.member; name != "" {
				found := false
				for k, v := range body {
					found = found || fmt.Sprint(k, "=", v) == name
				}
				if !found {
					t.Fatalf("body %s, want %s", w.Body, name)
				}
			}
		})
	}
}

func TestWriteError_RetryAfterIsSpreadUpwardsOnly(t *testing.T) {
	for err, want := range map[error][2]int{
		&stock.AllHeldError{RetryAfter: 90 * time.Second}:        {90, 100},
		&stock.AllHeldError{RetryAfter: time.Millisecond}:        {1, 3},
		&stock.NotOpenError{RetryAfter: 90*time.Minute + 1}:      {5401, 5402}, // whom the bell calls must not sleep
		&idempotency.InFlightError{Lease: 30 * time.Second}:      {1, 3},
		&stock.AllHeldError{RetryAfter: 100 * 24 * time.Hour}:    {8640000, 8640010},
		&stock.AllHeldError{RetryAfter: -time.Second}:            {1, 3},
		&stock.AllHeldError{RetryAfter: 1500 * time.Millisecond}: {2, 4},
	} {
		low, high := math.MaxInt, 0
		for range 300 {
			w := httptest.NewRecorder()
			middleware.WriteError(w, request("", ""), err)
			n, _ := strconv.Atoi(w.Header().Get("Retry-After"))
			low, high = min(low, n), max(high, n)
		}
		if low < want[0] || high > want[1] || low == high {
			t.Errorf("%v: from %d to %d, want within %v and spread", err, low, high, want)
		}
	}
}

func TestProblem_ExtraThatIsNoJSONBecomesABare500(t *testing.T) {
	w := httptest.NewRecorder()
	middleware.WriteError(w, request("", ""), &middleware.Problem{Status: 409, Extra: map[string]any{"f": func() {}}})
	wantProblem(t, w, 500, "urn:firstcome:internal")
}
