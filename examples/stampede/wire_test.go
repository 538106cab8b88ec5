package main

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// answers is a wire whose server has said all of text.
func answers(text string) *wire {
	return &wire{reader: bufio.NewReaderSize(strings.NewReader(text), 4096)}
}

const soldOut = `{"type":"urn:firstcome:sold-out"}` // 33 bytes

func TestWire_ReadsAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 60)
	for name, c := range map[string]struct {
		text string
		want answer
	}{
		"held": {"HTTP/1.1 201 Created\r\nContent-Length: 16\r\n\r\n{\"order_id\":\"o\"}",
			answer{kind: kindHeld, order: "o"}},
		"held without an order": {"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
			answer{kind: kindOther, label: "201 without an order_id"}},
		"sold out, in chunks, names in any case": {"HTTP/1.1 409 Conflict\r\ntransfer-encoding: Chunked\r\n\r\n10;ext=1\r\n" + soldOut[:16] + "\r\n11\r\n" + soldOut[16:] + "\r\n0\r\nTrailer: x\r\n\r\n",
			answer{kind: kindSoldOut}},
		"no reason, bare line ends": {"HTTP/1.1 409\nContent-Length: 33\n\n" + soldOut,
			answer{kind: kindSoldOut}},
		"up to the end of the connection": {"HTTP/1.1 409 Conflict\r\n\r\n" + soldOut,
			answer{kind: kindSoldOut, closes: true}},
		"replayed, the last on this connection": {"HTTP/1.1 409 Conflict\r\nIdempotent-Replayed: true\r\nConnection: close\r\nContent-Length: 33\r\n\r\n" + soldOut,
			answer{kind: kindSoldOut, replayed: true, closes: true}},
		"HTTP/1.0": {"HTTP/1.0 409 Conflict\r\nContent-Length: 33\r\n\r\n" + soldOut,
			answer{kind: kindSoldOut, closes: true}},
		"after a 100": {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 409 Conflict\r\nContent-Length: 33\r\n\r\n" + soldOut,
			answer{kind: kindSoldOut}},
		"all held": {"HTTP/1.1 409 Conflict\r\nRetry-After: 7\r\nContent-Length: 34\r\n\r\n" + `{"type":"urn:firstcome:all-held" }`,
			answer{kind: kindAllHeld, retryAfter: 7 * time.Second}},
		"rate limited": {"HTTP/1.1 429 Too Many Requests\r\nRetry-After:1\r\nContent-Length: 0\r\n\r\n",
			answer{kind: kindLimited, retryAfter: time.Second}},
		"unavailable, not by the shop": {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\noops",
			answer{kind: kindUnavailable}},
		"nothing": {"HTTP/1.1 204 No Content\r\n\r\n",
			answer{kind: kindOther, label: "204"}},
		"another problem": {"HTTP/1.1 422 Unprocessable\r\nContent-Length: 34\r\n\r\n" + `{"type":"urn:firstcome:key-reuse"}`,
			answer{kind: kindOther, label: "422 key-reuse"}},
		"a long type is cut": {"HTTP/1.1 400 Bad Request\r\nContent-Length: 76\r\n\r\n" + `{"type":"` + long + "xxxxx" + `"}`,
			answer{kind: kindOther, label: "400 " + long}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := answers(c.text).read()
			if err != nil || got != c.want {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func TestWire_RefusesWhatIsNoAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"nothing at all":            {"", io.EOF},
		"half a status line":        {"HTTP/1.1 2", io.ErrUnexpectedEOF},
		"no headers":                {"HTTP/1.1 201 Created\r\n", io.ErrUnexpectedEOF},
		"half a body":               {"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{", io.ErrUnexpectedEOF},
		"half a chunk":              {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{", io.ErrUnexpectedEOF},
		"another protocol":          {"SSH-2.0-OpenSSH_9.2\r\n", errAnswer},
		"HTTP/2":                    {"HTTP/2.0 200 OK\r\n\r\n", errAnswer},
		"status of letters":         {"HTTP/1.1 2x1 Created\r\n\r\n", errAnswer},
		"status too small":          {"HTTP/1.1 099 Odd\r\n\r\n", errAnswer},
		"status too long":           {"HTTP/1.1 2010 Odd\r\n\r\n", errAnswer},
		"header without a colon":    {"HTTP/1.1 201 Created\r\nNonsense\r\n\r\n", errAnswer},
		"length below zero":         {"HTTP/1.1 201 Created\r\nContent-Length: -1\r\n\r\n", errAnswer},
		"length too large":          {"HTTP/1.1 201 Created\r\nContent-Length: 99999999\r\n\r\n", errAnswer},
		"chunk size of letters":     {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", errAnswer},
		"chunk size below zero":     {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", errAnswer},
		"chunk longer than it says": {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", errAnswer},
		"chunks without end":        {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("4000\r\n"+strings.Repeat("x", 0x4000)+"\r\n", 5), errAnswer},
		"body without end":          {"HTTP/1.1 201 Created\r\n\r\n" + strings.Repeat("x", maxBody+1), errAnswer},
		"header line without end":   {"HTTP/1.1 201 Created\r\nX: " + strings.Repeat("x", 5000), errAnswer},
		"headers without end":       {"HTTP/1.1 201 Created\r\n" + strings.Repeat("X: x\r\n", 200), errAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := answers(c.text).read(); !errors.Is(err, c.want) {
				t.Errorf("%+v, %v; want %v", got, err, c.want)
			}
		})
	}
}

func TestWire_KeepsAnswersApart(t *testing.T) {
	t.Parallel()
	w := answers("HTTP/1.1 409 Conflict\r\nRetry-After: 1\r\nContent-Length: 33\r\n\r\n" + soldOut +
		"HTTP/1.1 409 Conflict\r\nIdempotent-Replayed: true\r\nContent-Length: 33\r\n\r\n" + soldOut +
		"HTTP/1.1 404 Not Found\r\nContent-Length: 33\r\n\r\n" + soldOut)
	for i, want := range []answer{
		{kind: kindSoldOut, retryAfter: time.Second},
		{kind: kindSoldOut, replayed: true},
		{kind: kindOther, label: "404 sold-out"},
	} {
		if got, err := w.read(); err != nil || got != want {
			t.Errorf("answer %d is %+v, %v; want %+v", i, got, err, want)
		}
	}
	if _, err := w.read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func FuzzWire(f *testing.F) {
	f.Add("HTTP/1.1 409 Conflict\r\nContent-Length: 33\r\n\r\n" + soldOut)
	f.Add("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		w := answers(text)
		for range 10 {
			a, err := w.read()
			if err != nil {
				return
			}
			if a.kind >= kinds || len(w.body) > maxBody || a.retryAfter < 0 || a.name() == "" {
				t.Errorf("%+v with a body of %d", a, len(w.body))
			}
		}
	})
}

func TestParseRetryAfter_ReadsSecondsAndDates(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"0": 0, "12": 12 * time.Second, "-1": 0, "soon": 0, "": 0, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:04:08 GMT": 3 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("%q is %v, want %v", value, got, want)
		}
	}
}
