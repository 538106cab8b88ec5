package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/ratelimit"
)

// fakeLimiter answers what it holds.
type fakeLimiter struct {
	decision ratelimit.Decision
	err      error
}

func (f fakeLimiter) Take(context.Context, ...ratelimit.Take) (ratelimit.Decision, error) {
	return f.decision, f.err
}

func (f fakeLimiter) Refund(context.Context, ratelimit.Decision) error { return nil }

func noTakes(*http.Request) ([]ratelimit.Take, error) { return nil, nil }

var (
	perBuyer = ratelimit.Limit{Name: "buyer", Quota: 20, Window: time.Second}
	overall  = ratelimit.Limit{Name: "shop", Quota: 100, Window: time.Minute}
)

func status(l ratelimit.Limit, allowed bool, remaining int64, retry, reset time.Duration) ratelimit.Status {
	return ratelimit.Status{
		Take: ratelimit.Take{Limit: l, Key: "k", Cost: 1}, Allowed: allowed, Remaining: remaining, RetryAfter: retry, ResetAfter: reset,
	}
}

func allowedBy(s ...ratelimit.Status) fakeLimiter {
	return fakeLimiter{decision: ratelimit.Decision{Allowed: true, Statuses: s}}
}

func deniedBy(retry time.Duration, s ...ratelimit.Status) fakeLimiter {
	return fakeLimiter{decision: ratelimit.Decision{RetryAfter: retry, Permanent: retry == 0, Statuses: s}}
}

func someTakes(*http.Request) ([]ratelimit.Take, error) {
	return []ratelimit.Take{{Limit: perBuyer, Key: "k", Cost: 1}}, nil
}

// limited sends one request through a limiter around next, which answers 204.
func limited(l ratelimit.Limiter, down middleware.StoreDown, opts *middleware.RateLimitOptions) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	middleware.RateLimit(l, someTakes, down, opts)(next).ServeHTTP(w, request("", ""))
	return w
}

// members reads a field as RFC 9651 has it.
func members(t *testing.T, h http.Header, name string) (names []string, params map[string]map[string]int64) {
	t.Helper()
	if n := len(h.Values(name)); n != 1 {
		t.Fatalf("%s stands %d times", name, n)
	}
	list, err := httpsfv.UnmarshalList(h.Values(name))
	if err != nil {
		t.Fatalf("%s %q: %v", name, h.Get(name), err)
	}
	params = map[string]map[string]int64{}
	for _, m := range list {
		item := m.(httpsfv.Item)
		policy := item.Value.(string)
		names = append(names, policy)
		params[policy] = map[string]int64{}
		for _, p := range item.Params.Names() {
			v, _ := item.Params.Get(p)
			params[policy][p] = v.(int64)
		}
	}
	return names, params
}

func TestRateLimit_FieldsParseAndTheTightestStandsFirst(t *testing.T) {
	w := limited(allowedBy(
		status(overall, true, 99, 0, 600*time.Millisecond),
		status(perBuyer, true, 3, 0, 850*time.Millisecond),
	), middleware.FailClosed, nil)
	if w.Code != http.StatusNoContent {
		t.Fatalf("status %d", w.Code)
	}
	names, policy := members(t, w.Header(), "RateLimit-Policy")
	if fmt.Sprint(names) != "[buyer shop]" || policy["buyer"]["q"] != 20 || policy["buyer"]["w"] != 1 || policy["shop"]["w"] != 60 {
		t.Fatalf("RateLimit-Policy %q", w.Header().Get("RateLimit-Policy"))
	}
	names, limit := members(t, w.Header(), "RateLimit")
	if fmt.Sprint(names) != "[buyer shop]" || limit["buyer"]["r"] != 3 || limit["buyer"]["t"] != 1 || limit["shop"]["r"] != 99 {
		t.Fatalf("RateLimit %q", w.Header().Get("RateLimit"))
	}
}

func TestRateLimit_RemainingIsNeverAboveTheQuota(t *testing.T) {
	bursty := ratelimit.Limit{Name: "bursty", Quota: 10, Window: time.Second, Burst: 50}
	w := limited(allowedBy(status(bursty, true, 49, 0, time.Second)), middleware.FailClosed, nil)
	if _, limit := members(t, w.Header(), "RateLimit"); limit["bursty"]["r"] != 10 {
		t.Fatalf("RateLimit %q", w.Header().Get("RateLimit"))
	}
}

func TestRateLimit_DenialNamesThePoliciesAndWhenToReturn(t *testing.T) {
	l := deniedBy(2500*time.Millisecond,
		status(overall, true, 50, 0, time.Minute),
		status(perBuyer, false, 0, 2500*time.Millisecond, 5*time.Second))
	seen := map[int]bool{}
	for range 200 {
		w := limited(l, middleware.FailClosed, nil)
		wantProblem(t, w, 429, "https://iana.org/assignments/http-problem-types#quota-exceeded")
		var body struct {
			Violated []string `json:"violated-policies"`
			Status   int      `json:"status"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || !slices.Equal(body.Violated, []string{"buyer"}) || body.Status != 429 {
			t.Fatalf("body %s, %v", w.Body, err)
		}
		retry, err := strconv.Atoi(w.Header().Get("Retry-After"))
		if err != nil || retry < 3 {
			t.Fatalf("Retry-After %q", w.Header().Get("Retry-After"))
		}
		names, limit := members(t, w.Header(), "RateLimit")
		if fmt.Sprint(names) != "[buyer]" || limit["buyer"]["t"] != 3 || limit["buyer"]["t"] > int64(retry) || limit["buyer"]["r"] != 0 {
			t.Fatalf("RateLimit %q", w.Header().Get("RateLimit"))
		}
		seen[retry] = true
	}
	if len(seen) < 3 {
		t.Fatalf("Retry-After took the values %v in 200 denials: no jitter", seen)
	}
}

func TestRateLimit_CostThatNeverFitsHasNoRetryAfter(t *testing.T) {
	w := limited(deniedBy(0, status(perBuyer, false, 20, 0, 0)), middleware.FailOpen, nil)
	if w.Code != 429 || w.Header().Get("Retry-After") != "" || strings.Contains(w.Header().Get("RateLimit"), "t=") {
		t.Fatalf("%d, headers %v", w.Code, w.Header())
	}
}

func TestRateLimit_StoreDownFollowsThePolicy(t *testing.T) {
	down := fakeLimiter{err: fmt.Errorf("take: %w: secret address", ratelimit.ErrUnavailable)}
	w := limited(down, middleware.FailClosed, nil)
	wantProblem(t, w, 503, "urn:firstcome:unavailable")
	if w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "secret") {
		t.Fatalf("headers %v, body %s", w.Header(), w.Body)
	}
	w = limited(down, middleware.FailOpen, nil)
	if w.Code != http.StatusNoContent || len(w.Header()) != 0 {
		t.Fatalf("%d, headers %v", w.Code, w.Header())
	}
}

func TestRateLimit_MistakeInALimitNeverFailsOpen(t *testing.T) {
	w := limited(fakeLimiter{err: ratelimit.ErrInvalid}, middleware.FailOpen, nil)
	wantProblem(t, w, 500, "urn:firstcome:internal")
}

func TestRateLimit_ShadowNeverDeniesAndShowsNothing(t *testing.T) {
	for _, l := range []fakeLimiter{
		deniedBy(time.Second, status(perBuyer, false, 0, time.Second, time.Second)),
		{err: errors.New("down")},
	} {
		w := limited(l, middleware.FailClosed, &middleware.RateLimitOptions{Shadow: true})
		if w.Code != http.StatusNoContent || len(w.Header()) != 0 {
			t.Fatalf("%d, headers %v", w.Code, w.Header())
		}
	}
}

func TestRateLimit_TwoStackedGiveOneCoherentSet(t *testing.T) {
	stack := func(outer, inner fakeLimiter) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h := middleware.RateLimit(inner, someTakes, middleware.FailClosed, nil)(http.NotFoundHandler())
		middleware.RateLimit(outer, someTakes, middleware.FailClosed, nil)(h).ServeHTTP(w, request("", ""))
		return w
	}
	outer := allowedBy(status(overall, true, 10, 0, 54*time.Second))
	w := stack(outer, allowedBy(status(perBuyer, true, 19, 0, 50*time.Millisecond)))
	names, limit := members(t, w.Header(), "RateLimit")
	if fmt.Sprint(names) != "[shop buyer]" || limit["shop"]["r"] != 10 || limit["shop"]["t"] != 54 || limit["buyer"]["r"] != 19 {
		t.Fatalf("RateLimit %q", w.Header().Get("RateLimit"))
	}
	if names, _ := members(t, w.Header(), "RateLimit-Policy"); fmt.Sprint(names) != "[shop buyer]" {
		t.Fatalf("RateLimit-Policy %q", w.Header().Get("RateLimit-Policy"))
	}
	w = stack(outer, deniedBy(time.Second, status(perBuyer, false, 0, time.Second, time.Second)))
	if names, _ := members(t, w.Header(), "RateLimit"); fmt.Sprint(names) != "[buyer]" || w.Code != 429 {
		t.Fatalf("%d, RateLimit %q", w.Code, w.Header().Get("RateLimit"))
	}
	if names, _ := members(t, w.Header(), "RateLimit-Policy"); fmt.Sprint(names) != "[buyer shop]" {
		t.Fatalf("RateLimit-Policy %q", w.Header().Get("RateLimit-Policy"))
	}
}

func TestRateLimit_CallerThatCantBeToldIsRefused(t *testing.T) {
	w := httptest.NewRecorder()
	nobody := func(*http.Request) ([]ratelimit.Take, error) { return nil, errors.New("no address") }
	middleware.RateLimit(fakeLimiter{}, nobody, middleware.FailOpen, nil)(http.NotFoundHandler()).ServeHTTP(w, request("", ""))
	wantProblem(t, w, 403, "urn:firstcome:no-principal")
}

func TestRateLimit_LimitedFirstTryLeavesTheKeyUnused(t *testing.T) {
	g := newRig(t, rigOptions{}, created)
	denied := middleware.RateLimit(deniedBy(time.Second, status(perBuyer, false, 0, time.Second, time.Second)), someTakes, middleware.FailClosed, nil)
	w := httptest.NewRecorder()
	denied(g.handler).ServeHTTP(w, request("k", "b"))
	if w.Code != 429 {
		t.Fatalf("status %d", w.Code)
	}
	g.wantAnswer(g.do(request("k", "b")), 201, "made b", false)
	g.wantRuns(1)
}
