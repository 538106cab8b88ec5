package faulty

import (
	"sync"
	"time"
)

// Every means, in place of a number, each matching request or reply until the
// fault is lifted.
const Every = 0

// TB is the part of [testing.TB] that a fault reports to.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// kind is what a fault does.
type kind int

const (
	cutReply     kind = iota // the reply is lost, the connection closed
	dropReply                // the reply is lost, the connection stays silent
	delayReply               // the reply is late
	cutRequest               // the request is lost, the connection closed
	stallRequest             // the connection carries nothing for a while, or ever after
)

// Fault is one planned mishap.
type Fault struct {
	kind    kind
	matches []Match
	delay   time.Duration // of a reply, or the length of a stall

	mu     sync.Mutex
	n      int // how many matching ones are still to come, this one included; Every: all
	lifted bool
	count  int
	fired  chan struct{} // closed at the first time
}

func newFault(k kind, n int, matches []Match, delay time.Duration) *Fault {
	return &Fault{kind: k, n: max(n, Every), matches: matches, delay: delay, fired: make(chan struct{})}
}

// strikes counts a request and tells whether it is the one.
func (f *Fault) strikes(request []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lifted || !all(f.matches, request) {
		return false
	}
	if f.n != Every {
		f.n--
		if f.n > 0 {
			return false
		}
		f.lifted = true
	}
	return true
}

// fire records that it has happened.
func (f *Fault) fire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.count == 1 {
		close(f.fired)
	}
}

// Fired is closed once the fault has happened for the first time.
func (f *Fault) Fired() <-chan struct{} { return f.fired }

// Count is how many times it has happened.
func (f *Fault) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Lift takes the fault back. Connections that it has cut or silenced stay so.
func (f *Fault) Lift() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lifted = true
}

// MustFire waits up to ten seconds for the fault to happen and ends the test
// if it does not: a test of a fault that never came proves nothing.
func (f *Fault) MustFire(t TB) {
	t.Helper()
	timer := time.NewTimer(10 * time.Second)
	defer timer.Stop()
	select {
	case <-f.fired:
	case <-timer.C:
		t.Fatalf("faulty: the planned fault never happened")
	}
}
