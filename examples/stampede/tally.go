package main

import (
	"maps"
	"sync"
	"sync/atomic"
)

// tally counts answers while they come in.
type tally struct {
	final    [kinds]atomic.Int64 // answers that ended a send
	again    [kinds]atomic.Int64 // answers after which it was sent again
	replayed atomic.Int64        // of either, stored results
	cuts     atomic.Int64        // connections cut on purpose
	lost     atomic.Int64        // connections that ended in mid-request
	gaveUp   atomic.Int64        // sends given up after maxTries

	mu    sync.Mutex
	other map[string]int64
}

func (t *tally) count(a answer, again bool) {
	if a.replayed {
		t.replayed.Add(1)
	}
	if again {
		t.again[a.kind].Add(1)
		return
	}
	t.final[a.kind].Add(1)
	if a.kind == kindOther {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.other == nil {
			t.other = make(map[string]int64)
		}
		t.other[a.label]++
	}
}

// answered is the number of sends that have their final answer.
func (t *tally) answered() (n int64) {
	for i := range t.final {
		n += t.final[i].Load()
	}
	return n
}

// refused is the number of answers after which a send was sent again.
func (t *tally) refused() (n int64) {
	for i := range t.again {
		n += t.again[i].Load()
	}
	return n
}

// unexpected lists the answers that nobody in this crowd should get.
func (t *tally) unexpected() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.other)
}

// byKind names the final answers, and those after which it was sent again.
func (t *tally) byKind() (final, again map[string]int64) {
	final, again = make(map[string]int64), make(map[string]int64)
	for k, label := range kindLabels {
		if n := t.final[k].Load(); n > 0 && kind(k) != kindOther {
			final[label] = n
		}
		if n := t.again[k].Load(); n > 0 {
			again[label] = n
		}
	}
	maps.Copy(final, t.unexpected())
	return final, again
}
