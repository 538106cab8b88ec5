package faulty

import (
	"sync"
	"time"
)

// deadline is a point in time that can be moved while somebody waits for it,
// as [net.Conn] asks of its deadlines (pgx moves one into the past to end a
// read).
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	expiry chan struct{} // closed when it has passed; replaced when it is moved
}

func newDeadline() *deadline { return &deadline{expiry: make(chan struct{})} }

// set moves the deadline; the zero time is never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.expiry // it has fired, or is just about to: let it finish
	}
	d.timer = nil
	select {
	case <-d.expiry:
		d.expiry = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	expiry := d.expiry
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(expiry) })
	} else {
		close(expiry)
	}
}

// passed returns a channel that is closed once the deadline, as it stands
// now, has passed.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.expiry
}
