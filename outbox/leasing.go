package outbox

import (
	"context"
	"time"
)

// startLease sends a heartbeat. What it grants counts from before it was sent,
// less a margin for clocks that run at different speeds.
func (l *loop) startLease() {
	l.leasing = true
	req := LeaseRequest{Relay: l.id, TTL: l.opts.LeaseTTL, Release: l.left()}
	sent := time.Now()
	l.aside(func() func() {
		ctx, cancel := context.WithTimeout(l.base, min(l.opts.StoreTimeout, l.opts.LeaseTTL/4))
		defer cancel()
		leases, err := l.store.Lease(ctx, req)
		return func() { l.didLease(sent, leases, err) }
	})
}

// left lists the lanes that are to be given back and have come to rest.
func (l *loop) left() []int {
	var lanes []int
	for n, la := range l.lanes {
		if la != nil && la.leaving && la.idle() {
			lanes = append(lanes, n)
		}
	}
	return lanes
}

func (l *loop) didLease(sent time.Time, leases Leases, err error) {
	l.leasing = false
	now := time.Now()
	if err != nil {
		l.leaseDue = now.Add(min(l.opts.LeaseTTL/16, time.Second))
		l.log.Error("lease not renewed", "valid_for", l.validUntil.Sub(now), "error", err)
		return
	}
	l.validUntil = sent.Add(l.opts.LeaseTTL - l.opts.LeaseTTL/10)
	l.leaseDue = earlier(sent.Add(l.opts.LeaseTTL/4), now.Add(l.opts.LeaseTTL/4))
	var granted [Lanes]bool
	for _, lease := range leases.Lanes {
		if lease.Lane < 0 || lease.Lane >= Lanes {
			continue
		}
		granted[lease.Lane] = true
		l.grant(lease)
	}
	for n := range l.lanes {
		if l.lanes[n] != nil && !granted[n] {
			if !l.lanes[n].leaving {
				l.log.Warn("lane lost", "lane", n)
			}
			l.closeLane(n)
		}
	}
	if !l.draining {
		l.giveUp(len(leases.Lanes) - Share(leases.Relays))
	}
}

// grant takes a lane into hand. One that changed hands meanwhile, even if it came
// back, is begun anew.
func (l *loop) grant(lease Lease) {
	if la := l.lanes[lease.Lane]; la != nil && la.epoch == lease.Epoch {
		return
	}
	l.closeLane(lease.Lane)
	l.lanes[lease.Lane] = newLane(lease)
	l.lanes[lease.Lane].more = true
}

// giveUp begins to give lanes back when this relay has more than its share.
func (l *loop) giveUp(surplus int) {
	for _, la := range l.lanes {
		if la != nil && la.leaving {
			surplus--
		}
	}
	for n := Lanes - 1; n >= 0 && surplus > 0; n-- {
		if la := l.lanes[n]; la != nil && !la.leaving {
			l.quit(la)
			surplus--
		}
	}
	if len(l.left()) > 0 {
		l.leaseDue = time.Now()
	}
}
