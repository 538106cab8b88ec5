package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	// answerPatience is how long one answer is waited for. The connection is
	// closed then and the same request sent again.
	answerPatience = 30 * time.Second
	// deadlineStep is how coarse that is: moving a deadline costs as much as
	// parsing an answer, so it is moved once in a while only.
	deadlineStep = 2 * time.Second

	maxHeaderLines = 100
	maxBody        = 64 << 10
)

// errAnswer is the beginning of each complaint about a response that no HTTP
// server should send.
var errAnswer = errors.New("answer")

// wire is one keep-alive connection. It speaks as much HTTP/1.1 as the answers
// to its own requests need, because the generator shares the machine with the
// server: net/http's client costs three times what this does.
type wire struct {
	conn     net.Conn
	reader   *bufio.Reader
	unwatch  func() bool
	deadline time.Time

	body       []byte // of the last answer
	classifier classifier
}

// wrap takes over a connection, which ends with ctx.
func wrap(ctx context.Context, conn net.Conn) *wire {
	w := &wire{conn: conn, reader: bufio.NewReaderSize(conn, 4096)}
	w.unwatch = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return w
}

func (w *wire) close() {
	w.unwatch()
	_ = w.conn.Close()
}

// write sends a request.
func (w *wire) write(request []byte, now time.Time) error {
	if w.deadline.Sub(now) < answerPatience {
		w.deadline = now.Add(answerPatience + deadlineStep)
		if err := w.conn.SetDeadline(w.deadline); err != nil {
			return err
		}
	}
	_, err := w.conn.Write(request)
	return err
}

// read reads the answer to the last request.
func (w *wire) read() (answer, error) {
	head, err := w.readHead()
	if err != nil {
		return answer{}, err
	}
	if err := w.readBody(&head); err != nil {
		return answer{}, err
	}
	a := w.classifier.classify(head.status, w.body)
	a.retryAfter, a.replayed, a.closes = head.retryAfter, head.replayed, head.closes
	return a, nil
}

// head is what matters of the status line and the headers.
type head struct {
	status     int
	length     int // -1: not said
	chunked    bool
	closes     bool
	replayed   bool
	retryAfter time.Duration
}

func (w *wire) readHead() (head, error) {
	for {
		line, err := w.readLine()
		if err != nil {
			return head{}, err
		}
		status, old, err := parseStatus(line)
		if err != nil {
			return head{}, err
		}
		h := head{status: status, length: -1, closes: old}
		if err := w.readHeaders(&h); err != nil {
			return head{}, err
		}
		if status >= 200 { // a 1xx is no answer yet
			return h, nil
		}
	}
}

func (w *wire) readHeaders(h *head) error {
	for range maxHeaderLines {
		line, err := w.readLine()
		if err != nil {
			return noEOF(err)
		}
		if len(line) == 0 {
			return nil
		}
		if err := h.header(line); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: more than %d header lines", errAnswer, maxHeaderLines)
}

// readLine returns the next line without its end, valid until the next read.
func (w *wire) readLine() ([]byte, error) {
	line, err := w.reader.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("%w: a header line is too long", errAnswer)
	}
	if err != nil {
		if len(line) > 0 {
			err = noEOF(err)
		}
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// parseStatus reads "HTTP/1.1 201 Created"; old says HTTP/1.0.
func parseStatus(line []byte) (status int, old bool, err error) {
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' || (len(line) > 12 && line[12] != ' ') {
		return 0, false, fmt.Errorf("%w: %.40q is not a status line", errAnswer, line)
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, false, fmt.Errorf("%w: %.40q has no status", errAnswer, line)
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 {
		return 0, false, fmt.Errorf("%w: status %d", errAnswer, status)
	}
	return status, line[7] == '0', nil
}

// header takes in one header line. Names are told apart by length first: most
// lines are none of ours.
func (h *head) header(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return fmt.Errorf("%w: %.40q is not a header line", errAnswer, line)
	}
	name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
	switch colon {
	case len("Content-Length"):
		if is(name, "Content-Length") {
			n, err := strconv.Atoi(string(value))
			if err != nil || n < 0 || n > maxBody {
				return fmt.Errorf("%w: Content-Length %.20q; up to %d is read", errAnswer, value, maxBody)
			}
			h.length = n
		}
	case len("Transfer-Encoding"):
		h.chunked = h.chunked || is(name, "Transfer-Encoding") && is(value, "chunked")
	case len("Connection"):
		h.closes = h.closes || is(name, "Connection") && is(value, "close")
	case len("Retry-After"):
		if is(name, "Retry-After") {
			h.retryAfter = parseRetryAfter(string(value), time.Now())
		}
	case len("Idempotent-Replayed"):
		h.replayed = h.replayed || is(name, "Idempotent-Replayed") && is(value, "true")
	}
	return nil
}

func is(b []byte, s string) bool { return bytes.EqualFold(b, []byte(s)) }

// parseRetryAfter reads seconds or a date; what it cannot read is zero.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

// readBody reads the body into w.body.
func (w *wire) readBody(h *head) error {
	w.body = w.body[:0]
	switch {
	case h.status == http.StatusNoContent || h.status == http.StatusNotModified:
		return nil
	case h.chunked:
		return w.readChunks()
	case h.length >= 0:
		return w.readN(h.length)
	}
	h.closes = true // a body without a length ends with the connection
	rest, err := io.ReadAll(io.LimitReader(w.reader, maxBody+1))
	if len(rest) > maxBody {
		return errBody()
	}
	w.body = append(w.body, rest...)
	return err
}

func (w *wire) readN(n int) error {
	had := len(w.body)
	if had+n > maxBody {
		return errBody()
	}
	w.body = append(w.body, make([]byte, n)...)
	_, err := io.ReadFull(w.reader, w.body[had:])
	return noEOF(err)
}

func (w *wire) readChunks() error {
	for {
		line, err := w.readLine()
		if err != nil {
			return noEOF(err)
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 31)
		if err != nil {
			return fmt.Errorf("%w: %.20q is not a chunk size", errAnswer, line)
		}
		if n == 0 {
			return w.readHeaders(&head{}) // trailers, up to the empty line
		}
		if err := w.readN(int(n)); err != nil {
			return err
		}
		if line, err := w.readLine(); err != nil || len(line) != 0 {
			return fmt.Errorf("%w: a chunk does not end", errAnswer)
		}
	}
}

func errBody() error { return fmt.Errorf("%w: a body of more than %d bytes", errAnswer, maxBody) }

// noEOF marks an end in the middle of an answer.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
