package middleware

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/stock"
)

const (
	problemPrefix = "urn:firstcome:"
	problemMedia  = "application/problem+json"
	// quotaExceeded is the type that the RateLimit draft registers.
	quotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"
)

// Problem is an answer in the form of RFC 9457. It is an error, so a handler, a
// scope or a key function may return one of its own, which [WriteError] writes
// as it is.
type Problem struct {
	Type   string // a URI that stays the same: clients switch on it
	Title  string // for people; the same for each Type
	Status int
	Detail string         // for people, of this one case; no inner details
	Extra  map[string]any // further members

	// RetryAfter becomes the Retry-After header, in seconds, rounded up and
	// spread upwards, so that those refused together don't return together. 0: none.
	RetryAfter time.Duration

	exact bool   // spread by one second at most: the moment itself matters
	fixed []byte // the body, where it is always the same
}

// Error returns the type and the title.
func (p *Problem) Error() string { return p.Type + ": " + p.Title }

// MarshalJSON writes the members; those that are empty are left out.
func (p *Problem) MarshalJSON() ([]byte, error) {
	members := make(map[string]any, len(p.Extra)+4)
	for name, value := range p.Extra {
		members[name] = value
	}
	members["type"], members["title"], members["status"] = p.Type, p.Title, p.Status
	if p.Detail != "" {
		members["detail"] = p.Detail
	}
	return json.Marshal(members)
}

// kind is one row of the map from errors to answers.
type kind struct {
	err     error
	problem Problem
	// nothing says that the error stands for "nothing happened, ask again":
	// the key of the request is released.
	nothing bool
}

func row(err error, status int, name, title string, edits ...func(*kind)) kind {
	k := kind{err: err, problem: Problem{Type: problemPrefix + name, Title: title, Status: status}}
	for _, edit := range edits {
		edit(&k)
	}
	k.problem.fixed, _ = json.Marshal(&k.problem) //nolint:errchkjson // strings and a number: never fails
	return k
}

func again(k *kind)   { k.nothing = true }
func soon(k *kind)    { k.problem.RetryAfter = time.Second }
func shortly(k *kind) { k.problem.RetryAfter = 5 * time.Second }

// kinds is the one map. The first row that fits is taken, so what is asked for
// most stands first and what wraps others last.
var kinds = []kind{
	row(stock.ErrSoldOut, 409, "sold-out", "Every unit is sold.", again),
	row(stock.ErrAllHeld, 409, "all-held", "Every unit is sold or held for somebody; some may become free.", again, soon),
	row(stock.ErrLimit, 409, "buyer-limit", "This buyer's limit is reached.", again),
	row(idempotency.ErrInFlight, 409, "in-flight", "A request with this Idempotency-Key is still running.", soon),
	row(stock.ErrNotOpen, 409, "not-open", "The sale has not begun.", again, func(k *kind) { k.problem.exact = true }),
	row(stock.ErrClosed, 409, "closed", "The sale has ended."),
	row(stock.ErrPaused, 409, "paused", "The sale is paused.", again, shortly),
	row(stock.ErrTooManyAttempts, 409, "too-many-attempts", "This buyer has too many reservations that are open or remembered.", again),
	row(stock.ErrTooLate, 409, "too-late", "The time for this has passed."),
	row(stock.ErrExpired, 409, "too-late", "The time for this has passed."),
	row(stock.ErrLate, 409, "too-late", "The time for this has passed."),
	row(stock.ErrRetired, 409, "closed", "The sale has ended."),
	row(stock.ErrVersion, 409, "version", "The terms were changed meanwhile.", again),
	row(stock.ErrOver, 409, "in-use", "Units are held or sold.", again),
	row(stock.ErrInUse, 409, "in-use", "The sale is not over.", again),
	row(stock.ErrConfirmed, 409, "confirmed", "The reservation is sold already."),
	row(stock.ErrCancelled, 409, "cancelled", "The reservation was cancelled."),
	row(stock.ErrNotConfirmed, 409, "not-confirmed", "The reservation is not sold."),
	row(stock.ErrUnknownSKU, 404, "unknown-sku", "There is no such article."),
	row(stock.ErrNotFound, 404, "not-found", "There is no such reservation."),
	row(ErrKeyMissing, 400, "key-missing", "This request needs an Idempotency-Key header."),
	row(ErrKeyMalformed, 400, "key-malformed", "The Idempotency-Key header is malformed."),
	row(idempotency.ErrMismatch, 422, "key-reused", "This Idempotency-Key was used with another request."),
	row(stock.ErrMismatch, 422, "key-reused", "This Idempotency-Key was used with another request."),
	row(idempotency.ErrUnknown, 409, "outcome-unknown", "Whether an earlier request with this Idempotency-Key took effect is not known yet."),
	row(idempotency.ErrNotKept, 409, "result-not-kept", "The request was executed before; its answer is not kept."),
	row(idempotency.ErrCorrupt, 500, "record-unreadable", "What is stored for this Idempotency-Key can't be read."),
	row(errBodyUnread, 400, "body-unreadable", "The body ended early."),
	row(errBodyLate, 408, "body-timeout", "The body did not arrive in time."),
	row(errNoLength, 411, "length-required", "An empty body must be announced by Content-Length: 0."),
	row(errBodyTaken, 500, "body-consumed", "The server has lost the body of this request."),
	row(stock.ErrInvalid, 400, "invalid", "The request is malformed."),
	row(idempotency.ErrInvalid, 400, "invalid", "The request is malformed."),
	row(stock.ErrBusy, 503, "unavailable", unavailableTitle, again, soon),
	row(stock.ErrJournalFull, 503, "unavailable", unavailableTitle, again, shortly),
	row(stock.ErrFenced, 503, "unavailable", unavailableTitle, again, shortly),
	row(stock.ErrLedger, 503, "unavailable", unavailableTitle, shortly),
	row(stock.ErrUnknown, 503, "unavailable", unavailableTitle, soon),
	row(idempotency.ErrUnavailable, 503, "unavailable", unavailableTitle, soon),
	row(ratelimit.ErrUnavailable, 503, "unavailable", unavailableTitle, soon),
	row(context.DeadlineExceeded, 503, "unavailable", unavailableTitle, soon),
	row(context.Canceled, 503, "unavailable", unavailableTitle, soon),
	row(ErrNoPrincipal, 403, "no-principal", "Who sends this request is not known."),
}

const unavailableTitle = "The service can't answer now."

var (
	tooLarge = row(nil, 413, "body-too-large", "The body is too large.")
	internal = row(nil, 500, "internal", "Something went wrong.")
)

// find returns the row of an error.
func find(err error) *kind {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return &tooLarge
	}
	for i := range kinds {
		if errors.Is(err, kinds[i].err) {
			return &kinds[i]
		}
	}
	return &internal
}

// ProblemOf returns the answer that [WriteError] gives for err. Nothing of
// err's text is in it.
func ProblemOf(err error) *Problem {
	p, _ := problemOf(err)
	return p
}

func problemOf(err error) (p *Problem, nothing bool) {
	if own, ok := errors.AsType[*Problem](err); ok {
		return own, false
	}
	k := find(err)
	p = &k.problem
	switch k.err {
	case stock.ErrAllHeld: //nolint:errorlint // a row of the table, not an error that came from somewhere
		if held, ok := errors.AsType[*stock.AllHeldError](err); ok {
			p = p.after(held.RetryAfter)
		}
	case stock.ErrNotOpen:
		if notOpen, ok := errors.AsType[*stock.NotOpenError](err); ok {
			p = p.after(notOpen.RetryAfter)
		}
	case stock.ErrLimit:
		if limit, ok := errors.AsType[*stock.LimitError](err); ok {
			p = p.with("remaining", limit.Remaining)
		}
	case stock.ErrMismatch:
		if mismatch, ok := errors.AsType[*stock.MismatchError](err); ok {
			p = p.with("field", mismatch.Field)
		}
	case stock.ErrVersion:
		if version, ok := errors.AsType[*stock.VersionError](err); ok {
			p = p.with("version", version.Version)
		}
	case stock.ErrOver:
		if over, ok := errors.AsType[*stock.OverError](err); ok {
			p = p.with("over", over.By)
		}
	}
	if item, ok := errors.AsType[*stock.ItemError](err); ok {
		p = p.with("sku", item.SKU)
	}
	return p, k.nothing
}

// after copies a problem with another time to return. A time that has come is
// still a time.
func (p *Problem) after(d time.Duration) *Problem {
	c := *p
	c.RetryAfter = max(d, time.Millisecond)
	return &c
}

// with copies a problem and adds a member, so that rows stay as they are.
func (p *Problem) with(name string, value any) *Problem {
	c := *p
	c.fixed = nil
	c.Extra = maps.Clone(p.Extra)
	if c.Extra == nil {
		c.Extra = make(map[string]any, 1)
	}
	c.Extra[name] = value
	return &c
}

// WriteError answers with the problem that stands for err: the module's errors
// by the table in the package's documentation, a [*Problem] as it is, a
// [*http.MaxBytesError] as 413, anything else as a bare 500. What is inside err
// stays inside: log it yourself.
//
// Where err says that nothing happened and asking again may help, the claim of
// r (see [Idempotency]) is marked, so that the answer is not stored.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	p, nothing := problemOf(err)
	if nothing {
		if claim, ok := idempotency.FromContext(r.Context()); ok {
			claim.NothingHappened()
		}
	}
	p.write(w)
}

func (p *Problem) write(w http.ResponseWriter) {
	body := p.fixed
	if body == nil {
		var err error
		if body, err = json.Marshal(p); err != nil { // a member of Extra that is no JSON
			internal.problem.write(w)
			return
		}
	}
	h := w.Header()
	// What the handler has said of another body is not true of this one; but
	// Content-Encoding may be that of outer middleware which compresses whatever
	// comes. The names stand in their canonical form: most answers of a sale come
	// by here.
	for _, name := range [...]string{"Content-Length", "Etag", "Last-Modified"} {
		delete(h, name)
	}
	h["Content-Type"] = []string{problemMedia}
	h["Cache-Control"] = []string{"no-store"}
	if p.RetryAfter > 0 {
		h["Retry-After"] = []string{strconv.FormatInt(retrySeconds(p.RetryAfter, p.exact), 10)}
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) //nolint:gosec // JSON, sent as such; a client that has left misses it
}

// retrySeconds rounds up, and spreads upwards by a quarter, from 2 to 10 s: ten
// thousand clients that are refused in one second must not return in one.
func retrySeconds(d time.Duration, exact bool) int64 {
	seconds := max(int64((d+time.Second-1)/time.Second), 1)
	spread := min(2+seconds/4, 10)
	if exact {
		spread = 1
	}
	return seconds + rand.Int64N(spread+1)
}
