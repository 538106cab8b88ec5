package faulty

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// maxRequest bounds what is kept of a request for matching.
const maxRequest = 1 << 20

// conn is a connection on which faults happen. Like any net.Conn it is read
// by one goroutine at a time and written by one at a time.
type conn struct {
	net.Conn
	dialer *Dialer

	ended chan struct{} // closed when it is cut, or closed by its owner
	once  sync.Once

	mu      sync.Mutex
	request []byte // what was written since the last read
	asked   bool   // a request waits for its reply
	wasCut  bool
	stalled *stall // nil while bytes pass

	deadline *deadline // for reading
	// These belong to the goroutine that reads.
	silent  bool
	held    []byte    // a reply that is delayed, or came in a stall
	release time.Time // when held may be read
}

func newConn(d *Dialer, inner net.Conn) *conn {
	return &conn{Conn: inner, dialer: d, ended: make(chan struct{}), deadline: newDeadline()}
}

func ofRequest(k kind) bool { return k == cutRequest || k == stallRequest }
func ofReply(k kind) bool   { return !ofRequest(k) }

// Write notes what is asked, and passes it on.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	first := !c.asked
	c.asked = true
	c.request = append(c.request, p[:min(len(p), maxRequest-len(c.request))]...)
	// A request is counted once, by its first write.
	var fault *Fault
	if first {
		fault = c.dialer.struck(c.request, ofRequest)
	}
	c.mu.Unlock()
	if fault != nil {
		if fault.kind == cutRequest {
			c.cut()
		} else {
			c.stall(fault.delay)
		}
		fault.fire()
	}
	if c.isCut() || c.detain(p) {
		return len(p), nil // as if the kernel had taken it, and the network lost it
	}
	return c.Conn.Write(p)
}

// Read passes on what comes, unless it begins the reply that a fault was
// waiting for.
func (c *conn) Read(p []byte) (int, error) {
	if c.silent {
		return c.readNothing()
	}
	if err := c.sitOut(); err != nil {
		return 0, err
	}
	if len(c.held) > 0 {
		return c.readHeld(p)
	}
	n, err := c.Conn.Read(p)
	if c.isCut() {
		return 0, io.EOF
	}
	if n == 0 {
		return n, err
	}
	if c.stallNow() != nil { // it began while this read waited
		c.held, c.release = append([]byte(nil), p[:n]...), time.Time{}
		return c.Read(p)
	}
	fault := c.answered()
	if fault == nil {
		return n, err
	}
	switch fault.kind {
	case cutReply:
		c.cut()
		fault.fire()
		return 0, io.EOF
	case dropReply:
		c.silent = true
		fault.fire()
		return c.readNothing()
	default: // delayReply
		c.held = append([]byte(nil), p[:n]...)
		c.release = time.Now().Add(fault.delay)
		fault.fire()
		return c.readHeld(p)
	}
}

// answered ends the turn, if one was open, and returns the fault that strikes
// its reply.
func (c *conn) answered() *Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked {
		return nil // more of the same reply, or a word of the server's own
	}
	fault := c.dialer.struck(c.request, ofReply)
	c.asked, c.request = false, c.request[:0]
	return fault
}

// readNothing reads and throws away until the deadline, or the end.
func (c *conn) readNothing() (int, error) {
	scratch := make([]byte, 4096)
	for {
		if _, err := c.Conn.Read(scratch); err != nil {
			if c.isCut() {
				return 0, io.EOF
			}
			return 0, err
		}
	}
}

// readHeld gives a delayed reply when its time has come.
func (c *conn) readHeld(p []byte) (int, error) {
	timer := time.NewTimer(time.Until(c.release))
	defer timer.Stop()
	if err := wait(c, timer.C); err != nil {
		return 0, err
	}
	n := copy(p, c.held)
	c.held = c.held[n:]
	return n, nil
}

// wait returns nil when over fires, unless the deadline or the end of the
// connection comes first.
func wait[T any](c *conn, over <-chan T) error {
	select {
	case <-over:
		return nil
	case <-c.deadline.passed():
		return os.ErrDeadlineExceeded
	case <-c.ended:
		if c.isCut() {
			return io.EOF
		}
		return net.ErrClosed
	}
}

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	c.deadline.set(t)
	return c.unlessCut(c.Conn.SetDeadline(t))
}

// SetReadDeadline sets the deadline of reading.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.deadline.set(t)
	return c.unlessCut(c.Conn.SetReadDeadline(t))
}

// SetWriteDeadline sets the deadline of writing.
func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.unlessCut(c.Conn.SetWriteDeadline(t))
}

// Close closes the connection for good.
func (c *conn) Close() error {
	c.end()
	if c.lingers() {
		return nil
	}
	return c.unlessCut(c.Conn.Close())
}

// cut closes the connection under its owner, who finds out by reading io.EOF.
func (c *conn) cut() {
	c.mu.Lock()
	c.wasCut = true
	c.mu.Unlock()
	c.end()
	_ = c.Conn.Close()
}

func (c *conn) end() {
	c.once.Do(func() {
		close(c.ended)
		c.dialer.forget(c)
	})
}

func (c *conn) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wasCut
}

// unlessCut hides that the inner connection of a cut one is closed: its owner
// is to learn it as from a network, by reading.
func (c *conn) unlessCut(err error) error {
	if c.isCut() {
		return nil
	}
	return err
}
