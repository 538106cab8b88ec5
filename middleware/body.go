package middleware

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

var (
	errBodyUnread = errors.New("middleware: body could not be read")
	errBodyLate   = errors.New("middleware: body did not arrive in time")
	errBodyTaken  = errors.New("middleware: outer middleware has read the body and left neither it nor a parsed form")
	errNoLength   = errors.New("middleware: body of unknown length is empty")
)

const (
	// maxPromised is the largest first buffer that is made on the word of a
	// client or of outer middleware. More grows with what has arrived.
	maxPromised = 16 << 10
	// drainTime is how long net/http may look for the end of a body that was
	// refused, before it sends the refusal.
	drainTime = time.Second
)

// readBody reads what is left of the body, up to MaxBody and for BodyTimeout at
// most. What was announced bounds nothing but the first buffer: outer middleware
// that unpacks a body may leave the length as it came. net/http itself makes an
// error of an upload that ends early, so that it never becomes a claim.
func (m *idempotent) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > m.opts.MaxBody {
		return nil, &http.MaxBytesError{Limit: m.opts.MaxBody}
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	watch := watchBody(w, m.opts.BodyTimeout)
	defer watch.timer.Stop() // a panic of outer middleware's reader: the connection may live on
	body, err := readAll(http.MaxBytesReader(w, r.Body, m.opts.MaxBody), r.ContentLength)
	if late, unable := watch.end(); late {
		if unable != nil {
			m.meter.tell(r, slog.LevelWarn, "it was slow, and could not be interrupted: the ResponseWriter takes no read deadline", unable)
		}
		return nil, errBodyLate
	}
	return body, readError(err)
}

// readAll is io.ReadAll with a first buffer for as much as was announced.
func readAll(body io.Reader, announced int64) ([]byte, error) {
	size := int64(512)
	if announced > 0 {
		size = min(announced, maxPromised) + 1 // the byte more is for the read that finds the end
	}
	buf := make([]byte, 0, size)
	for {
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF { // one that is wrapped, as by a decoder, is no proper end
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
}

func readError(err error) error {
	if err == nil {
		return nil
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return err
	}
	kind := errBodyUnread
	switch {
	case errors.Is(err, http.ErrBodyReadAfterClose):
		kind = errBodyTaken
	case errors.Is(err, os.ErrDeadlineExceeded): // the server's own ReadTimeout
		kind = errBodyLate
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// bodyWatch ends the reading of a body when its time is up.
//
// It sets a read deadline then and not before, and one that has passed: so it
// never replaces a deadline of the server or of outer middleware, and there is
// none to put back. One that stayed would end the read by which net/http notices
// in the background that the client leaves, and with it the handler's context.
type bodyWatch struct {
	timer *time.Timer
	fired sync.WaitGroup
	err   error // of setting the deadline
}

func watchBody(w http.ResponseWriter, limit time.Duration) *bodyWatch {
	b := new(bodyWatch)
	b.fired.Add(1)
	b.timer = time.AfterFunc(limit, func() {
		defer b.fired.Done()
		b.err = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	})
	return b
}

// end stops the watch. Where it was late, however much of the body has come, the
// connection has a deadline that has passed, and can only be answered and closed.
// unable says that the writer takes none.
func (b *bodyWatch) end() (late bool, unable error) {
	if b.timer.Stop() {
		return false, nil
	}
	b.fired.Wait()
	return true, b.err
}

// refuseBody answers where the body was not read. net/http looks for the end of
// it before it answers, so that the connection can be used again; that must not
// hold it for longer than the reading itself may.
func (m *idempotent) refuseBody(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, errBodyLate):
		// The deadline that has passed stays: the rest of the body is not
		// waited for. On HTTP/2 it is the stream's alone, and this header would
		// take the connection from the others.
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
	case errors.Is(err, errBodyTaken):
		m.meter.tell(r, slog.LevelError, "outer middleware has read it", err)
	case errors.Is(err, errNoLength):
		m.meter.tell(r, slog.LevelWarn, "it was empty and of unknown length", err)
	default:
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTime)) // where it can be
	}
	WriteError(w, r, err)
}

// heldBody gives the handler what was read.
type heldBody struct{ bytes.Reader }

func (*heldBody) Close() error { return nil }

// withBody sets the body on r, which must be the middleware's own copy, and its
// true length, wherever that is told.
func withBody(r *http.Request, body []byte) {
	if body == nil {
		return
	}
	held := new(heldBody)
	held.Reset(body)
	r.Body = held
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	if said := r.Header["Content-Length"]; len(said) > 0 {
		if length := strconv.Itoa(len(body)); said[0] != length {
			r.Header = r.Header.Clone()
			r.Header.Set("Content-Length", length)
		}
	}
}
