package faulty

import "time"

// Forever is the length of a [Dialer.Stall] that does not end.
const Forever time.Duration = 0

// stall is a time in which a connection carries nothing.
type stall struct {
	over    chan struct{} // closed when it ends
	forever bool
	waiting []byte // written meanwhile, to be sent at the end
	closed  bool   // by its owner, meanwhile
}

// stall begins one, unless one is on. long is how long it lasts, or Forever.
func (c *conn) stall(long time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled != nil {
		return
	}
	c.stalled = &stall{over: make(chan struct{}), forever: long <= Forever}
	if !c.stalled.forever {
		time.AfterFunc(long, c.resume)
	}
}

// stallNow is the stall that is on, or nil.
func (c *conn) stallNow() *stall {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stalled
}

// detain takes what is written during a stall, and tells whether it did.
func (c *conn) detain(p []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled == nil {
		return false
	}
	if !c.stalled.forever {
		c.stalled.waiting = append(c.stalled.waiting, p...)
	}
	return true
}

// sitOut waits until no stall is on.
func (c *conn) sitOut() error {
	if s := c.stallNow(); s != nil {
		return wait(c, s.over)
	}
	return nil
}

// lingers tells whether the stall that is on has to close the connection, since
// what was written before its owner closed it still waits.
func (c *conn) lingers() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled == nil || c.stalled.forever || c.wasCut {
		return false
	}
	c.stalled.closed = true
	return true
}

// resume ends a stall: it sends what waited, and what is written while it does.
func (c *conn) resume() {
	for {
		c.mu.Lock()
		s := c.stalled
		late := s.waiting
		s.waiting = nil
		if len(late) == 0 {
			c.stalled = nil
			c.mu.Unlock()
			close(s.over)
			if s.closed {
				_ = c.Conn.Close()
			}
			return
		}
		c.mu.Unlock()
		_ = c.Conn.SetWriteDeadline(time.Time{}) // the owner's may have passed: the kernel sends all the same
		_, _ = c.Conn.Write(late)
	}
}
