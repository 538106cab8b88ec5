package middleware

import (
	"net/http"
	"reflect"

	"github.com/firstcome/firstcome/idempotency"
)

// payload is what a request says: its body, or the form that outer middleware
// has made of it, with what that has left of the body.
type payload struct {
	body   []byte // nil: the request's own body is to stay
	form   []byte // the form, encoded
	parsed bool   // there is a form
}

// readPayload reads all that the request says, before anything is claimed.
func (m *idempotent) readPayload(w http.ResponseWriter, r *http.Request) (payload, error) {
	body, err := m.readBody(w, r)
	if err != nil {
		return payload{}, err
	}
	if hasForm(r) {
		// What comes behind a form's end is no part of it, and stays unread.
		if len(body) == 0 {
			body = nil
		}
		form, err := encodeForm(r, m.opts.MaxBody-int64(len(body)))
		return payload{body: body, form: form, parsed: true}, err
	}
	// Somebody has read what was announced, or its beginning, and what it said is not to be seen:
	// all payloads would have one fingerprint.
	if r.ContentLength > 0 && (len(body) == 0 || int64(len(body)) < r.ContentLength && unwrapped(r)) {
		return payload{}, errBodyTaken
	}
	// Here it may as well be the client that sends chunks and none of them.
	// It can do without, and is told so.
	if len(body) == 0 && r.ContentLength < 0 {
		return payload{}, errNoLength
	}
	return payload{body: body}, nil
}

// unwrapped reports whether the body is net/http's own, which has as much as was
// announced. One of outer middleware may unpack less.
func unwrapped(r *http.Request) bool {
	t := reflect.TypeOf(r.Body)
	return t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "net/http" && t != reflect.TypeOf(http.MaxBytesReader(nil, nil, 0))
}

// fingerprint tells the request from any other under its key. A form has a word
// more than raw bytes have, so the two never meet.
func (p *payload) fingerprint(keeper *idempotency.Keeper, r *http.Request) idempotency.Fingerprint {
	if !p.parsed {
		return keeper.Fingerprint(p.body, r.Method, r.URL.EscapedPath(), r.URL.RawQuery)
	}
	said := append(p.form[:len(p.form):len(p.form)], p.body...) // the form tells its own end
	return keeper.Fingerprint(said, r.Method, r.URL.EscapedPath(), r.URL.RawQuery, "form")
}
