package redisstock

import (
	"context"
	"sync"
	"time"
)

const (
	forgetBuyers = 500 // buyers looked at in one script call
	forgetPause  = 50 * time.Millisecond
	forgetRounds = 4 // in one retention
)

// chores is what Run remembers of a pool from one visit to the next.
type chores struct {
	mu        sync.Mutex
	cursor    string    // where forgetting goes on; "" begins
	forgotten time.Time // when this process last asked whether a round is due
	terms     time.Time // when the terms were last compared with the ledger's
	heldBack  string    // the mark of units that are held back, and since when it is seen
	heldSince time.Time
}

// forget drops ended reservations whose retention is over, some buyers in a
// call, and reports whether its round goes on. Of all processes one makes a
// round, several times in a retention; so what has ended is kept for at most
// one and a quarter of it, as long as any process runs.
func (s *Store) forget(ctx context.Context, p *pool) (bool, error) {
	c := &p.chores
	pause := s.opts.Retention / forgetRounds
	if c.cursor == "" {
		if time.Since(c.forgotten) < min(pause, time.Minute) {
			return false, nil
		}
		c.forgotten, c.cursor = time.Now(), "0"
	}
	r, err := s.call(ctx, p, false, s.scripts.forget, 2, s.opts.Retention.Milliseconds(), c.cursor, pause.Milliseconds(), forgetBuyers)
	if err != nil {
		c.cursor = ""
		return false, err
	}
	if c.cursor = toString(r.rest[0]); c.cursor == "0" {
		c.cursor = ""
	}
	return c.cursor != "", nil
}
