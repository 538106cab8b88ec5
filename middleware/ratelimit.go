package middleware

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/firstcome/firstcome/ratelimit"
)

// StoreDown says what becomes of a request while the limiter's store can't be
// reached in time. There is no default.
type StoreDown int

const (
	// FailClosed refuses it, with 503 and Retry-After.
	FailClosed StoreDown = iota + 1
	// FailOpen lets it pass, uncounted.
	FailOpen
)

// RateLimitOptions tunes [RateLimit]; nil is the default.
type RateLimitOptions struct {
	// Shadow counts and measures, and neither denies nor shows a header.
	Shadow bool
	// HideFields leaves RateLimit and RateLimit-Policy out. Retry-After stays.
	HideFields bool
}

type rateLimit struct {
	limiter ratelimit.Limiter
	takes   func(*http.Request) ([]ratelimit.Take, error)
	down    StoreDown
	opts    RateLimitOptions
	meter   *telemetry
}

// RateLimit charges each request to any number of limits in one decision, and
// answers 429 where one denies; none is charged then.
//
// takes says which limits, for whom, and at what cost; none lets the request
// pass. An error, as where the caller can't be told, is answered with 403, or
// as [WriteError] has it: never by one bucket for all strangers. No header of
// the client is trusted by this package; see the example for addresses.
//
// Answers carry RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-
// headers), the tightest limit first, and join those of a RateLimit further out.
//
// RateLimit panics where an argument is missing: routes are built at start-up.
func RateLimit(limiter ratelimit.Limiter, takes func(*http.Request) ([]ratelimit.Take, error), onStoreDown StoreDown,
	opts *RateLimitOptions,
) func(http.Handler) http.Handler {
	if limiter == nil || takes == nil {
		panic("middleware.RateLimit: limiter or takes is nil")
	}
	if onStoreDown != FailClosed && onStoreDown != FailOpen {
		panic("middleware.RateLimit: onStoreDown is neither FailClosed nor FailOpen")
	}
	m := &rateLimit{limiter: limiter, takes: takes, down: onStoreDown, meter: newTelemetry()}
	if opts != nil {
		m.opts = *opts
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
	}
}

func (m *rateLimit) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	// 1. Which limits does it fall under?
	takes, err := m.takes(r)
	if err != nil && !m.opts.Shadow {
		WriteError(w, r, fmt.Errorf("%w: %w", err, ErrNoPrincipal))
		return
	}
	if len(takes) == 0 || err != nil {
		next.ServeHTTP(w, r)
		return
	}

	// 2. Is there room in all of them?
	d, err := m.limiter.Take(r.Context(), takes...)
	if err != nil {
		m.failed(w, r, next, err)
		return
	}

	// 3. Say so, and let it pass or not.
	if m.opts.Shadow {
		m.meter.decided(r.Context(), map[bool]string{true: "allowed", false: "shadow_denied"}[d.Allowed])
		next.ServeHTTP(w, r)
		return
	}
	if !m.opts.HideFields {
		setFields(w.Header(), &d)
	}
	if d.Allowed {
		m.meter.decided(r.Context(), "allowed")
		next.ServeHTTP(w, r)
		return
	}
	m.meter.decided(r.Context(), "denied")
	deny(w, &d)
}

// failed answers where there is no decision. A limit that is out of bounds is a
// mistake of the program, which failing open must not hide.
func (m *rateLimit) failed(w http.ResponseWriter, r *http.Request, next http.Handler, err error) {
	open := m.opts.Shadow || m.down == FailOpen && !errors.Is(err, ratelimit.ErrInvalid)
	if open && r.Context().Err() == nil {
		m.meter.decided(r.Context(), "failed_open")
		next.ServeHTTP(w, r)
		return
	}
	m.meter.decided(r.Context(), "failed_closed")
	WriteError(w, r, err)
}

// deny answers 429 with the names of the limits that denied. A cost that never
// fits gets no Retry-After.
func deny(w http.ResponseWriter, d *ratelimit.Decision) {
	violated := make([]string, 0, len(d.Statuses))
	for i := range d.Statuses {
		if !d.Statuses[i].Allowed {
			violated = append(violated, d.Statuses[i].Take.Limit.Name)
		}
	}
	p := Problem{
		Type:       quotaExceeded,
		Title:      "Request cannot be satisfied as assigned quota has been exceeded",
		Status:     http.StatusTooManyRequests,
		Extra:      map[string]any{"violated-policies": violated},
		RetryAfter: d.RetryAfter,
	}
	p.write(w)
}
