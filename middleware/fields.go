package middleware

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/firstcome/firstcome/ratelimit"
)

const (
	limitField  = "Ratelimit" // as net/http writes RateLimit
	policyField = "Ratelimit-Policy"
)

// field is one limit as the two header fields tell of it.
type field struct {
	name     string
	quota    int64 // q
	window   int64 // w, seconds
	left     int64 // r, never above q
	wait     int64 // t, seconds: until it may pass where it denied, until all is free where not
	denied   bool
	reported bool // in RateLimit, not in RateLimit-Policy only
}

// setFields writes RateLimit-Policy and RateLimit, together with those of a
// limiter further out: one line each, the tightest limit first. A denial reports
// the limits that denied, so that no t is above Retry-After.
func setFields(h http.Header, d *ratelimit.Decision) {
	var array [8]field
	fields := array[:0]
	for i := range d.Statuses {
		s := &d.Statuses[i]
		l := &s.Take.Limit
		f := field{
			name: l.Name, quota: l.Quota, window: seconds(l.Window), left: min(s.Remaining, l.Quota),
			wait: seconds(s.ResetAfter), denied: !s.Allowed, reported: d.Allowed || !s.Allowed,
		}
		if f.denied {
			f.wait = seconds(s.RetryAfter)
		}
		fields = append(fields, f)
	}
	if len(h[policyField]) > 0 {
		fields = append(fields, outerFields(h, fields, d.Allowed)...)
	}
	slices.SortStableFunc(fields, tighter)

	var text [256]byte
	buf := text[:0]
	for i := range fields {
		buf = fields[i].appendPolicy(buf)
	}
	h[policyField] = []string{string(buf)}
	buf = text[:0]
	for i := range fields {
		if fields[i].reported {
			buf = fields[i].appendLimit(buf)
		}
	}
	h[limitField] = []string{string(buf)}
}

// tighter orders by the share that is left.
func tighter(a, b field) int {
	if a.denied != b.denied {
		if a.denied {
			return -1
		}
		return 1
	}
	x, y := float64(a.left)/float64(max(a.quota, 1)), float64(b.left)/float64(max(b.quota, 1))
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// outerFields reads the fields that are there already. Names that this limiter
// uses too, and what is no such field, are dropped.
func outerFields(h http.Header, ours []field, allowed bool) []field {
	policies, err := httpsfv.UnmarshalList(h[policyField])
	if err != nil {
		return nil
	}
	limits, err := httpsfv.UnmarshalList(h[limitField])
	if err != nil {
		return nil
	}
	var out []field
	for _, m := range policies {
		name, p := itemOf(m)
		known := slices.ContainsFunc(ours, func(f field) bool { return f.name == name })
		if !known && quotable(name) {
			out = append(out, field{name: name, quota: integer(p, "q"), window: integer(p, "w")})
		}
	}
	for _, m := range limits {
		name, p := itemOf(m)
		for i := range out {
			if out[i].name == name {
				out[i].left, out[i].wait, out[i].reported = integer(p, "r"), integer(p, "t"), allowed
			}
		}
	}
	return out
}

func itemOf(m httpsfv.Member) (string, *httpsfv.Params) {
	item, ok := m.(httpsfv.Item)
	if !ok {
		return "", nil
	}
	name, _ := item.Value.(string)
	return name, item.Params
}

func integer(p *httpsfv.Params, name string) int64 {
	if p == nil {
		return 0
	}
	v, _ := p.Get(name)
	n, _ := v.(int64)
	return n
}

// quotable names need no escape in a structured field string.
func quotable(name string) bool {
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' || name[i] == '"' || name[i] == '\\' {
			return false
		}
	}
	return name != ""
}

// The fields are written by hand: every answer carries them, and a limit's name
// holds nothing that needs an escape. A test reads them with a parser.

func (f *field) appendPolicy(buf []byte) []byte {
	buf = f.appendName(buf)
	buf = strconv.AppendInt(append(buf, ";q="...), f.quota, 10)
	return strconv.AppendInt(append(buf, ";w="...), max(f.window, 1), 10)
}

func (f *field) appendLimit(buf []byte) []byte {
	buf = f.appendName(buf)
	buf = strconv.AppendInt(append(buf, ";r="...), f.left, 10)
	if f.denied && f.wait == 0 {
		return buf // it will never pass: no moment to name
	}
	return strconv.AppendInt(append(buf, ";t="...), f.wait, 10)
}

func (f *field) appendName(buf []byte) []byte {
	if len(buf) > 0 {
		buf = append(buf, ", "...)
	}
	buf = append(buf, '"')
	buf = append(buf, f.name...)
	return append(buf, '"')
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
