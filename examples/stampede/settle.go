package main

import (
	"context"
	"errors"
	"time"
)

const (
	// pollEvery is how often the books are read while orders settle. The shop
	// answers from a cache of one second.
	pollEvery = 250 * time.Millisecond
	// settledGrace covers that cache and one more sum.
	settledGrace = 3 * time.Second
)

// settling is the wait for the orders to settle, and how it ended.
type settling struct {
	books   books // the last that were read
	settled bool
	took    time.Duration
	err     error // the last attempt to read them failed
}

// settle reads the books until nothing is under way and fine accepts them, for
// at most limit. Once all has settled they get a moment more to become fine: the
// shop adds up several stores one after the other, and its cache may hold a sum
// from before. A shop that cannot be reached is asked again; it may be
// restarting.
func settle(ctx context.Context, a *auditor, limit time.Duration, fine func(books) bool, watch func(books)) settling {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	s := settling{err: errors.New("GET /audit: no answer in time")}
	var since time.Time // when the books were first seen settled
	for {
		b, err := a.books(ctx)
		if ctx.Err() != nil {
			return s // what was read before stands
		}
		s.took, s.err, s.settled = time.Since(start), err, err == nil && b.settled()
		if err == nil {
			s.books = b
			watch(b)
		}
		if !s.settled {
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		}
		if s.settled && (fine(b) || time.Since(since) > settledGrace) {
			return s
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s
		}
	}
}
