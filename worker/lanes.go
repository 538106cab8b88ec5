package worker

import "sync"

// laneID names a queue of tasks that run one after another.
type laneID struct {
	handler *handler
	kind    byte // keeps a key from meeting an event's ID
	name    string
}

// lanes runs tasks of different lanes in parallel and those of one lane in
// order. A lane lives as long as it has tasks; what is in flight bounds their
// number.
type lanes struct {
	work func(*task)

	mu     sync.Mutex
	closed bool
	queues map[laneID]*[]*task
	wg     sync.WaitGroup
}

func newLanes(work func(*task)) *lanes {
	return &lanes{work: work, queues: map[laneID]*[]*task{}}
}

// add queues tasks, all or, once closed, none of them.
func (l *lanes) add(tasks []*task) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	for _, t := range tasks {
		id := t.d.lane(t.handler)
		if q, busy := l.queues[id]; busy {
			*q = append(*q, t)
			continue
		}
		q := &[]*task{t}
		l.queues[id] = q
		l.wg.Go(func() { l.empty(id, q) })
	}
	return true
}

// empty works off one lane and removes it.
func (l *lanes) empty(id laneID, q *[]*task) {
	for {
		l.mu.Lock()
		if len(*q) == 0 {
			delete(l.queues, id)
			l.mu.Unlock()
			return
		}
		t := (*q)[0]
		(*q)[0] = nil // not held by the array behind the slice
		*q = (*q)[1:]
		l.mu.Unlock()
		l.work(t)
	}
}

// close refuses further tasks and returns a channel that closes when those
// there have left.
func (l *lanes) close() <-chan struct{} {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	done := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(done)
	}()
	return done
}
