package middleware

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
)

var errBodyUnread = errors.New("middleware: body could not be read")

// maxPromised is the largest body for which a buffer is made on the client's
// word alone. Larger ones grow with what has arrived.
const maxPromised = 16 << 10

// readBody reads the whole body, up to limit. An upload that ends early is an
// error, so it never becomes a claim.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	limited := http.MaxBytesReader(w, r.Body, limit)
	if n := r.ContentLength; n >= 0 && n <= maxPromised {
		return readKnown(limited, n)
	}
	body, err := io.ReadAll(limited)
	return body, readError(err)
}

// readKnown reads a body whose length was announced, into one buffer.
func readKnown(body io.Reader, n int64) ([]byte, error) {
	buf := make([]byte, n)
	if _, err := io.ReadFull(body, buf); err != nil {
		return nil, readError(err)
	}
	return buf, nil
}

func readError(err error) error {
	if _, large := errors.AsType[*http.MaxBytesError](err); large || err == nil {
		return err
	}
	return fmt.Errorf("%w: %w", errBodyUnread, err)
}

// heldBody gives the handler what was read.
type heldBody struct{ bytes.Reader }

func (*heldBody) Close() error { return nil }

// withBody sets the body on r, which must be the middleware's own copy.
func withBody(r *http.Request, body []byte) {
	if body == nil {
		return
	}
	held := new(heldBody)
	held.Reset(body)
	r.Body = held
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
}
