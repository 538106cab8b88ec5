package worker

import "sync"

// gate bounds what is in flight by count and by bytes.
type gate struct {
	maxCount int
	maxBytes int64

	mu     sync.Mutex
	count  int
	bytes  int64
	opened chan struct{} // closed and renewed whenever something left
}

func newGate(maxCount int, maxBytes int64) *gate {
	return &gate{maxCount: maxCount, maxBytes: maxBytes, opened: make(chan struct{})}
}

// enter waits for room and takes it; false when the stop, or the loss of the
// message, came first. What alone exceeds the bytes enters when nothing else is
// inside.
func (g *gate) enter(size int64, stop, lost <-chan struct{}) bool {
	for {
		wait, ok := g.tryEnter(size)
		if ok {
			return true
		}
		select {
		case <-wait:
		case <-stop:
			return false
		case <-lost:
			return false
		}
	}
}

func (g *gate) tryEnter(size int64) (wait <-chan struct{}, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.count > 0 && (g.count >= g.maxCount || g.bytes+size > g.maxBytes) {
		return g.opened, false
	}
	g.count++
	g.bytes += size
	return nil, true
}

func (g *gate) leave(size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count--
	g.bytes -= size
	close(g.opened)
	g.opened = make(chan struct{})
}
