package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/firstcome/firstcome/idempotency"
)

const (
	replayedHeader = "Idempotent-Replayed"
	bypassedHeader = "Idempotency-Bypassed"

	defaultMaxBody     = 1 << 20
	defaultBodyTimeout = 30 * time.Second
)

// IdempotencyOptions tunes [Idempotency]; nil and zero fields take the defaults.
type IdempotencyOptions struct {
	// Required refuses requests without a key (400 key-missing). Without it
	// they run unprotected.
	Required bool
	// Methods are those that the middleware looks at; default POST and PATCH.
	// Keys on others are ignored; GET, HEAD, OPTIONS and TRACE can't be named.
	Methods []string
	// MaxKeyLength is the most bytes of a key, up to and by default 255.
	MaxKeyLength int
	// MaxBody is the most bytes of a request's body, as the handler would read
	// it; default 1 MiB. Above it the answer is 413. The body is held in memory
	// while the handler runs.
	MaxBody int64
	// BodyTimeout is how long the whole body may take to arrive; default 30 s.
	// Then the answer is 408, nothing is claimed, and on HTTP/1 the connection is
	// closed. A shorter ReadTimeout of the server stays in force. Where outer
	// middleware wraps the ResponseWriter without Unwrap, a body that comes
	// slowly can't be interrupted: it is refused when it has come, and Logger is
	// told.
	BodyTimeout time.Duration
	// MaxStored is the most bytes of an answer's body that are held back and
	// stored; default and at most what the keeper keeps. Beyond it bytes flow
	// to the client at once, and later attempts get 409 result-not-kept.
	MaxStored int
	// Streaming lets all answers of the route flow at once; none is stored.
	Streaming bool
	// StoreHeaders are further response headers to store and replay, beside
	// Content-*, Location, ETag, Link, Cache-Control, Expires, Last-Modified and
	// Retry-After. Set-Cookie and those of a connection can't be named.
	StoreHeaders []string
	// DocsURL is linked from the answers key-missing and key-malformed.
	DocsURL string
	// Turnaway is asked, before a key is claimed, whether a request with this
	// body would be refused whatever its key says: sold out, say, from memory.
	// Where it returns an error and the key was never seen, [WriteError] answers
	// with it, and nothing is claimed or written: a crowd of losers costs one
	// look each. A key that was seen gets its own answer. Turnaway must be quick
	// and have no effect; the error must be a refusal that may be repeated. Where
	// outer middleware has parsed the form, body is empty and r has the form.
	Turnaway func(r *http.Request, body []byte) error
	// Admission stands between Turnaway and the claim, for what those who are
	// turned away shall not pay: a [RateLimit]. What it refuses leaves its key
	// unclaimed. The body has been read before it, up to MaxBody; it may read it
	// again, and so may the handler. Without Turnaway put it around the
	// middleware instead, where it costs less.
	Admission func(next http.Handler) http.Handler
	// FailOpen runs requests unprotected while the store can't be reached, with
	// the header Idempotency-Bypassed: true. Without it they get 503 and
	// nothing runs. Leave it unset where money moves.
	FailOpen bool
	// Logger hears, at most once a second, of requests that were refused since
	// outer middleware has taken their body; default slog.Default().
	Logger *slog.Logger
}

// idempotent is one route's middleware, without its handler.
type idempotent struct {
	keeper  *idempotency.Keeper
	scope   func(*http.Request) (string, error)
	opts    IdempotencyOptions
	headers []string
	link    string
	meter   *telemetry
	admit   http.Handler // Admission around the rest; nil where there is none
}

// Idempotency runs the first request with an Idempotency-Key and answers later
// ones with its result. The package comment tells what becomes of which answer.
//
// scope names the principal that a request's keys belong to: an authenticated
// user, a tenant, a session. It runs after authentication, so put the middleware
// inside of that; [SharedScope] is the explicit choice of one namespace for
// all. An error or an empty name is answered with 403, or as [WriteError] has
// it.
//
// The handler finds its claim by idempotency.FromContext. Idempotency panics
// where an argument is missing or an option is out of bounds: routes are built
// at start-up.
func Idempotency(keeper *idempotency.Keeper, scope func(*http.Request) (string, error), opts *IdempotencyOptions,
) func(http.Handler) http.Handler {
	m, err := newIdempotent(keeper, scope, opts)
	if err != nil {
		panic(err)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
	}
}

func newIdempotent(keeper *idempotency.Keeper, scope func(*http.Request) (string, error), opts *IdempotencyOptions,
) (*idempotent, error) {
	m := &idempotent{keeper: keeper, scope: scope, meter: newTelemetry()}
	if opts != nil {
		m.opts = *opts
	}
	o := &m.opts
	if keeper == nil || scope == nil {
		return nil, errors.New("middleware.Idempotency: keeper or scope is nil")
	}
	if len(o.Methods) == 0 {
		o.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	o.MaxKeyLength = orDefault(o.MaxKeyLength, maxKeySize)
	o.MaxBody = orDefault(o.MaxBody, defaultMaxBody)
	o.BodyTimeout = orDefault(o.BodyTimeout, defaultBodyTimeout)
	m.meter.log = orDefault(o.Logger, m.meter.log)
	o.MaxStored = orDefault(o.MaxStored, keeper.MaxResult())
	for _, method := range o.Methods {
		switch method {
		case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, "":
			return nil, fmt.Errorf("middleware.Idempotency: Options.Methods names %q", method)
		}
	}
	switch {
	case o.MaxKeyLength < 1 || o.MaxKeyLength > maxKeySize:
		return nil, fmt.Errorf("middleware.Idempotency: Options.MaxKeyLength is %d, not from 1 to %d", o.MaxKeyLength, maxKeySize)
	case o.MaxBody < 0:
		return nil, fmt.Errorf("middleware.Idempotency: Options.MaxBody is %d", o.MaxBody)
	case o.BodyTimeout < 0:
		return nil, fmt.Errorf("middleware.Idempotency: Options.BodyTimeout is %v", o.BodyTimeout)
	case o.MaxStored < 0 || o.MaxStored > keeper.MaxResult():
		return nil, fmt.Errorf("middleware.Idempotency: Options.MaxStored is %d, the keeper keeps %d", o.MaxStored, keeper.MaxResult())
	}
	if o.DocsURL != "" {
		if u, err := url.Parse(o.DocsURL); err != nil || strings.ContainsAny(o.DocsURL, "<>\" \r\n") || u.Path == "" && u.Host == "" {
			return nil, errors.New("middleware.Idempotency: Options.DocsURL is no URL")
		}
		m.link = "<" + o.DocsURL + `>; rel="describedby"`
	}
	var refused string
	if m.headers, refused = headerNames(o.StoreHeaders); refused != "" {
		return nil, fmt.Errorf("middleware.Idempotency: Options.StoreHeaders names %s, which is never stored", refused)
	}
	if o.Admission != nil {
		m.admit = o.Admission(http.HandlerFunc(m.admitted))
	}
	return m, nil
}

func orDefault[T comparable](value, standard T) T {
	var zero T
	if value == zero {
		return standard
	}
	return value
}

// serve takes a request from its key to its answer.
func (m *idempotent) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	// 1. Is this request ours?
	if !slices.Contains(m.opts.Methods, r.Method) {
		next.ServeHTTP(w, r)
		return
	}
	key, err := parseKey(r.Header, m.opts.MaxKeyLength)
	if err == nil && key == "" {
		if !m.opts.Required {
			next.ServeHTTP(w, r)
			return
		}
		err = ErrKeyMissing
	}
	if err != nil {
		if m.link != "" {
			w.Header().Add("Link", m.link)
		}
		WriteError(w, r, err)
		return
	}

	// 2. Whose is it? An unknown sender gets no namespace.
	scope, err := principal(r, m.scope)
	if err != nil {
		WriteError(w, r, err)
		return
	}

	// 3. What does it say? All of it, before anything is claimed.
	said, err := m.readPayload(w, r)
	if err != nil {
		m.refuseBody(w, r, err)
		return
	}
	m.visited(w, r, &visit{next: next, scope: scope, key: key, body: said.body, fingerprint: said.fingerprint(m.keeper, r)})
}

// visited takes a request whose payload is known to its answer.
func (m *idempotent) visited(w http.ResponseWriter, r *http.Request, v *visit) {
	// 4. Would it be refused in any case? Who looks at the body here, as a form,
	// say, leaves it to the next.
	own := r
	if m.opts.Turnaway != nil || m.admit != nil {
		own = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
		withBody(own, v.body)
	}
	if m.opts.Turnaway != nil {
		if refusal := m.opts.Turnaway(own, v.body); refusal != nil {
			v.attempt, v.err = m.keeper.BeginIfSeen(r.Context(), v.scope, v.key, v.fingerprint)
			if errors.Is(v.err, idempotency.ErrNotSeen) {
				v.err = refusal
			}
			v.begun = true
		}
	}

	// 5. Was it here before?
	if m.admit == nil || v.begun && v.attempt.Claim == nil {
		m.answer(w, r, v)
		return
	}
	defer func() {
		if !v.admitted && v.attempt.Claim != nil {
			_ = v.attempt.Claim.Release(r.Context()) // a key that was seen, refused by Admission
		}
	}()
	withBody(own, v.body)
	m.admit.ServeHTTP(w, own)
}

// visit is a request on its way through.
type visit struct {
	next        http.Handler
	scope, key  string
	fingerprint idempotency.Fingerprint
	body        []byte

	begun    bool // attempt and err are known already
	attempt  idempotency.Attempt
	err      error
	admitted bool
}

type visitKey struct{}

// admitted is what stands behind Admission.
func (m *idempotent) admitted(w http.ResponseWriter, r *http.Request) {
	v, ok := r.Context().Value(visitKey{}).(*visit)
	if !ok || v.admitted {
		panic("middleware.Idempotency: Options.Admission must pass the request's context on, once")
	}
	v.admitted = true
	m.answer(w, r, v)
}

// answer claims the key, where that was not tried before, and runs the handler
// or answers with what is known.
func (m *idempotent) answer(w http.ResponseWriter, r *http.Request, v *visit) {
	if !v.begun {
		v.attempt, v.err = m.keeper.Begin(r.Context(), v.scope, v.key, v.fingerprint)
	}
	switch {
	case v.err == nil && v.attempt.Claim != nil:
		m.run(w, r, v.next, v.attempt.Claim, v.body)
	case v.err == nil:
		if err := replay(w, v.attempt.Result); err != nil {
			WriteError(w, r, err)
		}
	case m.opts.FailOpen && errors.Is(v.err, idempotency.ErrUnavailable) && r.Context().Err() == nil:
		m.bypass(w, r, v.next, v.body)
	default:
		WriteError(w, r, v.err)
	}
}

// bypass runs a request unprotected, and says so.
func (m *idempotent) bypass(w http.ResponseWriter, r *http.Request, next http.Handler, body []byte) {
	m.meter.bypassed(r.Context())
	w.Header().Set(bypassedHeader, "true")
	own := r.WithContext(r.Context())
	withBody(own, body)
	next.ServeHTTP(w, own)
}

// run runs the handler under the claim, settles it, and then answers.
func (m *idempotent) run(w http.ResponseWriter, r *http.Request, next http.Handler, claim *idempotency.Claim, body []byte) {
	rec := &recorder{w: w, outer: outsideOf(w.Header()), limit: m.opts.MaxStored, flowing: m.opts.Streaming}
	returned := false
	defer func() {
		if !returned { // a panic, also http.ErrAbortHandler, or Goexit: it goes on after this
			_ = claim.Abandon(r.Context())
		}
	}()
	own := r.WithContext(claim.Hold(r.Context()))
	withBody(own, body)
	next.ServeHTTP(rec, own)
	returned = true
	if rec.status == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	m.settle(r, rec, claim)
	if !rec.flowing {
		rec.send()
	}
}

// settle ends the claim as the answer says. A store that fails here changes
// nothing about the answer: it is true, and the key stays unknown.
func (m *idempotent) settle(r *http.Request, rec *recorder, claim *idempotency.Claim) {
	ctx, header := r.Context(), rec.Header()
	switch {
	case claim.SaidNothingHappened():
		_ = claim.Release(ctx)
	case rec.status >= 500:
		_ = claim.Abandon(ctx)
	case mayChange(rec.status, rec.outer.own(header, "Retry-After")):
		_ = claim.Release(ctx)
	case rec.flowing || rec.outer.hasTrailers(header):
		_ = claim.CompleteNotKept(ctx)
	default:
		stored := buffers.Get().(*[]byte)
		*stored = appendStored((*stored)[:0], rec.status, header, rec.outer, rec.body(), m.headers)
		// After an error the bytes may still be on their way: not reused.
		if err := claim.Complete(ctx, *stored); err == nil {
			recycle(stored)
		}
	}
}

// mayChange tells refusals that the same request may not meet again. A success
// with Retry-After (202, 303) is none.
func mayChange(status int, retryAfter []string) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout,
		http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 400 && len(retryAfter) > 0
}
