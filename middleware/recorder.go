package middleware

import (
	"fmt"
	"net/http"
	"sync"
)

// recorder holds an answer back until it is stored. From the cap on, on a
// streaming route, and where the handler declares trailers, it lets bytes flow.
//
// It is a type of its own rather than a set of hooks: of a writer that holds
// back, no optional interface of the one below may be reached directly, so
// there is none to preserve. Deadlines and full duplex go through Unwrap.
type recorder struct {
	w       http.ResponseWriter
	outer   outside
	limit   int
	status  int // 0: nothing was said yet
	flowing bool
	buf     *[]byte
}

var (
	_ http.Flusher  = (*recorder)(nil)
	_ http.Hijacker = (*recorder)(nil)
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// maxPooled keeps a rare large answer from staying in memory.
const maxPooled = 128 << 10

func recycle(buf *[]byte) {
	if buf != nil && cap(*buf) <= maxPooled {
		*buf = (*buf)[:0]
		buffers.Put(buf)
	}
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.w }

// Header is the writer's own: what outer middleware has set is seen and kept.
func (r *recorder) Header() http.Header { return r.w.Header() }

// WriteHeader notes the status. 1xx answers pass.
func (r *recorder) WriteHeader(status int) {
	switch {
	case status < 100 || status > 999:
		// As net/http does, and here rather than when it is sent: the claim
		// must not be settled by then.
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	case status < 200 && status != http.StatusSwitchingProtocols:
		if r.status == 0 {
			r.w.WriteHeader(status)
		}
	case r.status != 0: // superfluous, as net/http sees it
	case r.flowing || len(r.outer.own(r.Header(), "Trailer")) > 0:
		r.status, r.flowing = status, true
		r.w.WriteHeader(status)
	default:
		r.status = status
	}
}

// Write holds p back, or lets all flow once the cap is reached.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.flowing {
		return r.w.Write(p)
	}
	if !bodyAllowed(r.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if r.buf == nil {
		r.buf = buffers.Get().(*[]byte)
	}
	if len(*r.buf)+len(p) > r.limit {
		r.flowing = true
		r.send()
		return r.w.Write(p)
	}
	*r.buf = append(*r.buf, p...)
	return len(p), nil
}

// WriteString is Write.
func (r *recorder) WriteString(s string) (int, error) { return r.Write([]byte(s)) }

// Flush flushes what flows, and nothing that is held back.
func (r *recorder) Flush() { _ = r.FlushError() }

// FlushError is Flush for http.ResponseController.
func (r *recorder) FlushError() error {
	if !r.flowing {
		return nil
	}
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(r.w).Flush()
}

// body is what is held back.
func (r *recorder) body() []byte {
	if r.buf == nil {
		return nil
	}
	return *r.buf
}

// send writes what was held back to the client.
func (r *recorder) send() {
	r.w.WriteHeader(r.status)
	if body := r.body(); len(body) > 0 {
		_, _ = r.w.Write(body) //nolint:gosec // the handler's own bytes; a client that has left misses them, the result is stored
	}
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
