package middleware

import (
	"bufio"
	"net"
	"net/http"
)

// Hijack refuses: an answer that leaves net/http can't be recorded.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, http.ErrNotSupported
}
