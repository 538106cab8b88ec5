package main

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// maxTries bounds how often one send is sent again.
	maxTries = 200
	// Answers that say "again" without a time, and lost connections, are
	// tried again after firstPause, doubled each time up to maxPause; maxPause
	// also bounds a Retry-After, or one header could stop the run.
	firstPause = 50 * time.Millisecond
	maxPause   = 3 * time.Second
)

// carrier carries sends over one connection, one after the other, and opens it
// anew when it is gone.
type carrier struct {
	crowd    *crowd
	wire     *wire // nil: gone
	purchase purchase
	samples  []sample
	fails    uint16 // attempts to connect in a row
}

// run carries sends until none is left or ctx ends.
func (c *carrier) run(ctx context.Context) {
	defer func() { c.hangUp() }()
	for {
		if !c.connected(ctx) {
			return
		}
		s, ok := c.crowd.take(ctx)
		if !ok {
			return
		}
		c.carry(ctx, s)
	}
}

// carry sends one purchase once.
func (c *carrier) carry(ctx context.Context, s send) {
	wrote := time.Now()
	if err := c.wire.write(c.purchase.of(int(s.buyer)), wrote); err != nil {
		c.lose(ctx, s)
		return
	}
	if s.cut {
		// The request is on its way, and nobody will read the answer. The
		// buyer comes back at once with the same key, as a browser would.
		s.cut = false
		c.crowd.tally.cuts.Add(1)
		c.hangUp()
		c.crowd.bringBack(s, 0)
		return
	}
	a, err := c.wire.read()
	if err != nil {
		c.lose(ctx, s)
		return
	}
	read := time.Now()
	c.settle(s, a, wrote.Sub(c.crowd.bell), read.Sub(c.crowd.bell))
	if a.closes {
		c.hangUp()
	}
}

// settle decides what an answer means for its send.
func (c *carrier) settle(s send, a answer, wrote, read time.Duration) {
	c.samples = append(c.samples, sample{took: read - wrote, since: read, first: !s.heard})
	again := a.kind.again()
	c.crowd.tally.count(a, again)
	if again {
		s.heard = true
		c.crowd.bringBack(s, pause(s.tries, a.retryAfter))
		return
	}
	c.crowd.book.record(s.buyer, a, wrote, read)
	c.crowd.end()
}

// lose hangs up after an error. Whether the request took effect is unknown, so
// it is sent again with the same key: that this is safe is what is tested.
func (c *carrier) lose(ctx context.Context, s send) {
	c.hangUp()
	if ctx.Err() != nil {
		return // this run ended, not the connection
	}
	c.crowd.tally.lost.Add(1)
	c.crowd.bringBack(s, pause(s.tries, 0))
}

func (c *carrier) hangUp() {
	if c.wire != nil {
		c.wire.close()
		c.wire = nil
	}
}

// connected opens the connection anew if it is gone, however long the server
// takes to come back; false when the run ended first.
func (c *carrier) connected(ctx context.Context) bool {
	for c.wire == nil {
		conn, err := c.crowd.target.dial(ctx)
		if err == nil {
			c.wire, c.fails = wrap(ctx, conn), 0
			break
		}
		timer := time.NewTimer(pause(c.fails, 0))
		c.fails++
		select {
		case <-timer.C:
		case <-c.crowd.done:
			timer.Stop()
			return false
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
	return true
}

// pause is the delay before attempt tries + 1, spread upwards by a fifth so that
// those who were refused together do not come back together.
func pause(tries uint16, retryAfter time.Duration) time.Duration {
	d := retryAfter
	if d <= 0 {
		d = firstPause << min(tries, 6)
	}
	d = min(d, maxPause)
	return d + rand.N(d/5+1)
}
