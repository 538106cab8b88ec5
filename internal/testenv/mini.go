package testenv

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Mini returns a client of a fresh miniredis, the embedded stand-in for Redis.
// Its clock is the machine's, but keys expire only when told to; a test that
// moves time takes [Bubble], or miniredis itself by miniredis.RunT.
func Mini(t testing.TB, edits ...func(*redis.Options)) *redis.Client {
	t.Helper()
	return newClient(t, &redis.Options{Addr: miniredis.RunT(t).Addr()}, edits)
}

// Bubble returns a client of a fresh miniredis for use inside a
// testing/synctest bubble: it is reached without a socket, and its clock and
// all expiries follow the bubble's. t is the bubble's own.
func Bubble(t TB, edits ...func(*redis.Options)) *redis.Client {
	t.Helper()
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	t.Cleanup(server.Close)
	dial := func(context.Context, string, string) (net.Conn, error) {
		conn, err := server.Dial()
		if err != nil {
			return nil, err
		}
		return newBuffered(conn), nil
	}
	// An address that needs no resolver, which lives outside of the bubble.
	return newClient(t, &redis.Options{Addr: "127.0.0.1:0", Dialer: dial}, edits)
}

// EachRedis runs f as a subtest on miniredis and as another on the shared real
// Redis, which is skipped where there is none. Keys of the two never meet, but
// those of several tests do: start them with [Name].
func EachRedis(t *testing.T, f func(t *testing.T, client redis.UniversalClient)) {
	t.Helper()
	t.Run("Miniredis", func(t *testing.T) { f(t, Mini(t)) })
	t.Run("Redis", func(t *testing.T) { f(t, Redis(t).Client(t)) })
}

// buffered is one end of a net.Pipe whose Write does not wait for the reader.
// A plain pipe has no buffer: client and server would block each other as soon
// as the first of many pipelined commands is answered.
type buffered struct {
	net.Conn

	mu      sync.Mutex
	waiting []byte
	closed  bool
	err     error
	wake    *sync.Cond
}

func newBuffered(conn net.Conn) *buffered {
	b := &buffered{Conn: conn}
	b.wake = sync.NewCond(&b.mu)
	go b.forward()
	return b
}

// Write takes all of p at once; an error of forwarding it shows at the next.
func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	if b.closed {
		return 0, net.ErrClosed
	}
	b.waiting = append(b.waiting, p...)
	b.wake.Signal()
	return len(p), nil
}

// Close closes the pipe and ends the forwarding.
func (b *buffered) Close() error {
	b.mu.Lock()
	b.closed = true
	b.wake.Signal()
	b.mu.Unlock()
	return b.Conn.Close()
}

func (b *buffered) forward() {
	for {
		b.mu.Lock()
		for len(b.waiting) == 0 && !b.closed {
			b.wake.Wait()
		}
		p := b.waiting
		b.waiting = nil
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return
		}
		if _, err := b.Conn.Write(p); err != nil {
			b.mu.Lock()
			b.err = err
			b.mu.Unlock()
			return
		}
	}
}
