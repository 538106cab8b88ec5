package outbox

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"
)

// loop is one run of a relay. All its state belongs to the goroutine in
// run; work that waits for others (the store, the publisher) runs aside and
// comes back as a function on the events channel. So there is nothing to lock,
// and each rule below is a plain sequence of steps.
//
// At most one call to the store is open at a time, beside the heartbeat: a row
// can therefore never be read by one call while another is deleting it and then
// be taken for a new one.
type loop struct {
	*Relay
	id     string // this run's name among the relays
	log    *slog.Logger
	events chan func()
	done   chan struct{} // closed at the end: late results go nowhere

	base    context.Context // detached from Run's: for calls that must end orderly
	pubCtx  context.Context // base, cancelled when the drain's time is over
	stopPub context.CancelFunc

	// Lanes.
	lanes      [Lanes]*lane
	zombies    [Lanes]int // calls to the publisher begun under an earlier lease of the lane
	validUntil time.Time  // nothing is published after this; monotonic
	leaseDue   time.Time
	leasing    bool

	// What is in memory.
	messages int
	bytes    int
	ready    []*key  // keys with a message to send, first come first served
	waiting  keyHeap // keys in backoff

	// Publishing.
	open     int           // calls to the publisher
	suspects map[*key]bool // keys refused without a verdict since the last acceptance
	accepted uint64        // acknowledgements in this run
	outage   int           // refusals on the broker's account in a row
	pausedTo time.Time     // with outage set: when to probe again

	// Work on the store.
	storeBusy  bool
	storeFails int       // calls failed in a row
	storeDue   time.Time // after failures: when to try again
	acked      []Receipt
	moves      []move
	settleLast bool
	pollDue    time.Time
	pollGap    time.Duration
	lastRead   time.Time
	firstLane  int // where the next read begins
	draining   bool
}

// shortestPoll is the gap between looks while messages keep coming, and
// coalesced the gap between looks however often Notify is called.
const (
	shortestPoll = 10 * time.Millisecond
	coalesced    = 2 * time.Millisecond
)

func newLoop(r *Relay) *loop {
	id := rand.Text()
	return &loop{
		Relay: r, id: id, log: r.opts.Logger.With("component", "outbox.relay", "relay", id[:8]),
		events: make(chan func(), 4*r.opts.Concurrency+8), done: make(chan struct{}),
		suspects: map[*key]bool{}, pollGap: shortestPoll,
	}
}

func (l *loop) run(ctx context.Context) error {
	l.base = context.WithoutCancel(ctx)
	l.pubCtx, l.stopPub = context.WithCancel(l.base)
	defer close(l.done)
	defer l.stopPub()
	stop, err := l.tel.observe()
	if err != nil {
		return err
	}
	defer stop()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.step(time.Now())
		timer.Reset(time.Until(l.nextDue()))
		select {
		case <-ctx.Done():
			return l.drain()
		case event := <-l.events:
			l.handle(event)
		case <-l.wake:
			l.pollDue = earlier(l.pollDue, l.lastRead.Add(coalesced))
			l.pollGap = shortestPoll
		case <-timer.C:
		}
	}
}

// handle runs an event and those that wait behind it, before the next step.
func (l *loop) handle(event func()) {
	event()
	for {
		select {
		case event = <-l.events:
			event()
		default:
			return
		}
	}
}

// step starts whatever may start now.
func (l *loop) step(now time.Time) {
	l.wakeKeys(now)
	if !l.leasing && !now.Before(l.leaseDue) {
		l.startLease()
	}
	if !l.storeBusy && !now.Before(l.storeDue) {
		l.startStore(now)
	}
	if !l.draining {
		l.dispatch(now)
	}
}

// nextDue is when step has something to do even if nothing happens.
func (l *loop) nextDue() time.Time {
	now := time.Now()
	due := l.leaseDue
	if l.leasing {
		due = now.Add(time.Hour)
	}
	if !l.storeBusy {
		if l.storeFails > 0 {
			due = earlier(due, l.storeDue)
		} else if l.mayRead() && !l.draining {
			due = earlier(due, l.pollDue)
			if l.wantsMore(now.Add(backGap)) {
				due = earlier(due, l.lastRead.Add(backGap))
			}
		}
	}
	if len(l.waiting) > 0 {
		due = earlier(due, l.waiting[0].notBefore)
	}
	if l.outage >= outageAfter && l.open == 0 && len(l.ready) > 0 && !l.draining {
		due = earlier(due, l.pausedTo)
	}
	return due
}

// aside runs work on a goroutine of its own and what it returns in the loop.
func (l *loop) aside(work func() func()) {
	go func() {
		then := work()
		select {
		case l.events <- then:
		case <-l.done:
		}
	}()
}

// startStore begins the one call to the store that is most wanted. Deleting and
// reading take turns, so that neither starves the other.
func (l *loop) startStore(now time.Time) {
	wantRead := !l.draining && l.mayRead() && (!now.Before(l.pollDue) || l.wantsMore(now))
	for len(l.moves) > 0 && l.lanes[l.moves[0].lane.n] != l.moves[0].lane {
		l.moves = l.moves[1:] // the lane is lost; its new owner will come to it
	}
	switch {
	case len(l.moves) > 0:
		l.startMove()
	case len(l.acked) > 0 && (!l.settleLast || !wantRead):
		l.settleLast = true
		l.startSettle()
	case wantRead:
		l.settleLast = false
		l.startRead(now)
	}
}

// storeDone notes the end of a call to the store. After a failure everything
// is read from the beginning: a database that failed over may have lost its
// last commits and hand out lower sequences again.
func (l *loop) storeDone(step string, err error) bool {
	l.storeBusy = false
	if err == nil || errors.Is(err, ErrFenced) {
		if l.storeFails > 0 {
			l.log.Info("store answers again", "failures", l.storeFails)
			l.storeFails = 0
			for _, la := range l.lanes {
				l.reset(la)
			}
		}
		return err == nil
	}
	l.storeFails++
	pause := min(20*time.Millisecond<<min(l.storeFails, 10), time.Second)
	l.storeDue = time.Now().Add(pause)
	l.log.Error("store failed", "step", step, "failures", l.storeFails, "error", err)
	return false
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
