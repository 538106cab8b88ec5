package middleware

import (
	"encoding/binary"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/firstcome/firstcome/idempotency"
)

// The version of the stored form. Another is refused, never replayed.
const storedVersion = 1

// storedHeaders are the fields of an answer that a replay repeats: those that
// speak of what was done or of the body. All others are of the one exchange, as
// Date, Set-Cookie, traces and rate limits, or come anew from outer middleware.
var storedHeaders = []string{
	"Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Location",
	"Content-Type", "Etag", "Expires", "Last-Modified", "Link", "Location", "Retry-After",
}

// never are those that no option adds: secrets, and what belongs to one
// connection or one exchange.
var never = map[string]bool{
	"Set-Cookie": true, "Authorization": true, "Www-Authenticate": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Authentication-Info": true, "Proxy-Authentication-Info": true,
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Content-Length": true, "Date": true,
	"Traceparent": true, "Tracestate": true, "X-Request-Id": true,
	"Ratelimit": true, "Ratelimit-Policy": true, replayedHeader: true, bypassedHeader: true,
}

// StoredResponse makes the stored form of an answer, for a reconcile function
// that knows what an earlier attempt did: idempotency.Happened(StoredResponse(…)).
// Of the headers only those that are always stored are taken.
func StoredResponse(status int, header http.Header, body []byte) []byte {
	return appendStored(nil, status, header, nil, body, storedHeaders)
}

// appendStored appends: version, status (2 bytes), number of header lines, each
// as name and value with their lengths, and the body. Lines that still are those
// of outer are left out.
func appendStored(buf []byte, status int, header http.Header, outer outside, body []byte, names []string) []byte {
	buf = append(buf, storedVersion)
	buf = binary.BigEndian.AppendUint16(buf, uint16(status)) //nolint:gosec // 200 to 999
	lines := 0
	for _, name := range names {
		lines += len(outer.own(header, name))
	}
	buf = binary.AppendUvarint(buf, uint64(lines))
	for _, name := range names {
		for _, value := range outer.own(header, name) {
			buf = appendText(appendText(buf, name), value)
		}
	}
	return append(buf, body...)
}

func appendText(buf []byte, s string) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

// storedReader reads the stored form, whatever its bytes are.
type storedReader struct {
	rest []byte
	bad  bool
}

func (s *storedReader) number() uint64 {
	v, n := binary.Uvarint(s.rest)
	if n <= 0 {
		s.bad = true
		return 0
	}
	s.rest = s.rest[n:]
	return v
}

func (s *storedReader) text() string {
	n := s.number()
	if s.bad || n > uint64(len(s.rest)) {
		s.bad = true
		return ""
	}
	t := string(s.rest[:n])
	s.rest = s.rest[n:]
	return t
}

// replay writes a stored answer. Each header that it names replaces what outer
// middleware has set.
func replay(w http.ResponseWriter, stored []byte) error {
	if len(stored) < 4 || stored[0] != storedVersion {
		return idempotency.ErrCorrupt
	}
	status := int(binary.BigEndian.Uint16(stored[1:3]))
	s := storedReader{rest: stored[3:]}
	lines := s.number()
	if status < 200 || status > 999 || lines > uint64(len(stored)) {
		return idempotency.ErrCorrupt
	}
	header := make(http.Header, lines+1)
	for range lines {
		name, value := s.text(), s.text()
		if s.bad || never[name] || name == "" {
			return idempotency.ErrCorrupt
		}
		header[name] = append(header[name], value)
	}
	if s.bad {
		return idempotency.ErrCorrupt
	}
	h := w.Header()
	for name, values := range header {
		h[name] = values
	}
	h.Set(replayedHeader, "true")
	w.WriteHeader(status)
	if bodyAllowed(status) && len(s.rest) > 0 {
		_, _ = w.Write(s.rest)
	}
	return nil
}

// headerNames joins the list with the names of an option.
func headerNames(more []string) ([]string, string) {
	names := append([]string(nil), storedHeaders...)
	for _, name := range more {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if never[name] || strings.HasPrefix(name, "X-Ratelimit") {
			return nil, name
		}
		names = append(names, name)
	}
	return names, ""
}
