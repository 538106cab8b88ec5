// Package outage tells an outage from a failure, for the whole module: whether
// an error says that a server or the way to it is away, that another
// transaction was in the way, or that the work itself failed.
//
// The three want different things. An outage is nobody's fault: it counts no
// attempt and buries nothing, and the work waits until it is over. Contention is
// tried again at once. A failure counts.
package outage

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
)

// Kind is what an error says of the world around the work.
type Kind uint8

// The kinds. Where an error's tree holds several, the larger one counts: a
// transaction that met a deadlock and then lost its connection is Unavailable.
const (
	// None is a failure of the work itself, or an error that nothing is known of.
	None Kind = iota
	// Contention is another transaction that was in the way: nothing was
	// committed, and the same work may be tried again at once.
	Contention
	// Unavailable is a server that is away, or can't take work now.
	Unavailable
)

// String returns the kind in lower case.
func (k Kind) String() string { return [...]string{"none", "contention", "unavailable"}[k] }

// Of classifies err. ctx is the attempt's own: where it has ended, a timeout is
// the attempt's and tells nothing of the server. A refused or broken connection,
// a server's own word and a mark ([Mark], [New]) count whatever the time.
// A cancelled context is None: somebody left.
func Of(ctx context.Context, err error) Kind {
	return find(err, ctx.Err() != nil)
}

// Mark marks err as Unavailable. Nil stays nil.
func Mark(err error) error {
	if err == nil {
		return nil
	}
	return &marked{err}
}

type marked struct{ error }

func (m *marked) Unwrap() error     { return m.error }
func (m *marked) Unavailable() bool { return true }

// New returns a sentinel that is Unavailable by its nature.
func New(text string) error { return &sentinel{text} }

type sentinel struct{ text string }

func (s *sentinel) Error() string     { return s.text }
func (s *sentinel) Unavailable() bool { return true }

// find walks the tree of err and returns its largest kind.
func find(err error, late bool) Kind {
	if err == nil {
		return None
	}
	kind := own(err, late)
	switch wrapped := err.(type) { //nolint:errorlint // the walk through the tree itself
	case interface{ Unwrap() error }:
		kind = max(kind, find(wrapped.Unwrap(), late))
	case interface{ Unwrap() []error }:
		for _, e := range wrapped.Unwrap() {
			kind = max(kind, find(e, late))
		}
	}
	return kind
}

// own classifies one error of the tree without those below it. Servers are told
// by what their clients' errors have in common, so that no client is imported.
func own(err error, late bool) Kind {
	switch e := err.(type) { //nolint:errorlint // find does the unwrapping
	case interface{ Unavailable() bool }:
		if e.Unavailable() {
			return Unavailable
		}
	case interface{ SQLState() string }: // pgx, lib/pq
		return ofSQLState(e.SQLState())
	case interface{ Code() int }: // modernc.org/sqlite
		return ofSQLite(err.Error(), e.Code())
	case interface{ RedisError() }: // go-redis: the server's answer
		return ofRedis(err.Error())
	case syscall.Errno:
		return ofErrno(e, late)
	case *net.DNSError:
		return Unavailable
	case *net.OpError:
		return ofNet(e, late)
	}
	if slices.Contains(broken, err) {
		return Unavailable
	}
	if timeout, ok := err.(interface{ Timeout() bool }); ok && timeout.Timeout() {
		if late {
			return None
		}
		return Unavailable
	}
	return ofText(err)
}

// broken are errors of a connection that has ended.
var broken = []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, driver.ErrBadConn}

// ofNet knows what the network says without a number of its own, or with one that
// elsewhere means something else: a socket's file that is not there, no more
// descriptors, a certificate that was refused. A wrong address and a dial that
// somebody left are none of it.
func ofNet(e *net.OpError, late bool) Kind {
	switch e.Err.(type) { //nolint:errorlint // find does the unwrapping
	case *net.AddrError, *net.ParseError, net.UnknownNetworkError, net.InvalidAddrError:
		return None
	}
	if late && e.Timeout() || errors.Is(e.Err, context.Canceled) {
		return None
	}
	return Unavailable
}

func ofErrno(e syscall.Errno, late bool) Kind {
	switch e {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ENETRESET,
		syscall.ENOTCONN:
		return Unavailable
	case syscall.ETIMEDOUT:
		if !late {
			return Unavailable
		}
	}
	return None
}
