package outbox

import (
	"container/heap"
	"slices"
	"time"
)

// keyRows is how many messages of one key are in memory: enough to keep its
// sender busy while more are read, too few to crowd others out.
const keyRows = 64

type keyID struct{ topic, key string }

// key is one topic and key with something to do. The first sent rows of queue
// are with the publisher; none of the others goes before these are resolved.
type key struct {
	id     keyID
	lane   *lane
	closed bool // its lane is no longer ours

	queue  []*row // by rising seq
	sent   int
	listed bool // in loop.ready

	// behind, when not 0: rows from this seq on (up to the lane's cursor) are not
	// in memory, and may be taken only by a pass that began before it.
	behind int64
	others bool  // rows beside the refused one were left out
	missed *pass // the pass in which a row was left out; it may take no later one

	// After a refusal.
	notBefore time.Time // waits until then; zero: does not wait
	parking   bool      // its first message is being moved out
	at        int       // place in the heap
	failedSeq int64
	tries     int    // of failedSeq
	attempts  int    // those that count
	accepted  uint64 // loop.accepted at the last refusal
}

// waits reports that nothing of the key may be sent now.
func (k *key) waits() bool { return k.parking || !k.notBefore.IsZero() }

func (k *key) hasRoom() bool { return len(k.queue) < keyRows }

// recalls reports that the key wants its refused message, and nothing else, back
// into memory: one probe of the index, however many keys are being refused.
func (k *key) recalls() bool {
	return k.tries > 0 && k.behind == k.failedSeq && len(k.queue) == 0
}

// wantsRows reports that the key wants what it is behind with.
func (k *key) wantsRows() bool {
	return !k.recalls() && (k.tries == 0 || len(k.queue) == 0) && len(k.queue) <= keyRows/2
}

func (la *lane) key(topic, name string) *key {
	id := keyID{topic, name}
	k := la.keys[id]
	if k == nil {
		k = &key{id: id, lane: la}
		la.keys[id] = k
	}
	return k
}

// miss notes that a row is left for later.
func (l *loop) miss(k *key, seq int64) {
	if k.behind == 0 || seq < k.behind {
		k.behind = seq
	}
	k.others = k.others || seq != k.failedSeq
	k.missed = k.lane.catchUp
	l.tidy(k)
}

// enqueue puts a row at its place behind what is with the publisher.
func (l *loop) enqueue(k *key, r *row) {
	i, _ := slices.BinarySearchFunc(k.queue[k.sent:], r.Seq, func(other *row, seq int64) int {
		return int(min(1, max(-1, other.Seq-seq)))
	})
	k.queue = slices.Insert(k.queue, k.sent+i, r)
	l.list(k)
}

// caughtUp notes that a key's rows up to seq are in memory or gone.
func (l *loop) caughtUp(k *key) {
	k.behind, k.others = 0, false
	l.tidy(k)
}

// list puts a key into the line of those with something to send.
func (l *loop) list(k *key) {
	if !k.listed && k.sent == 0 && len(k.queue) > 0 && !k.waits() && !k.closed {
		k.listed = true
		l.ready = append(l.ready, k)
	}
}

// flush drops what is queued and not with the publisher; it is read again later.
func (l *loop) flush(k *key) {
	for _, r := range k.queue[k.sent:] {
		l.miss(k, r.Seq)
		l.forget(k.lane, r.Seq)
	}
	clear(k.queue[k.sent:])
	k.queue = k.queue[:k.sent]
	l.tidy(k)
}

// tidy keeps the lane's lists in step with a key's state.
func (l *loop) tidy(k *key) {
	if k.behind != 0 && !k.waits() {
		k.lane.lagging[k] = true
	} else {
		delete(k.lane.lagging, k)
	}
	if k.behind == 0 && len(k.queue) == 0 && !k.waits() && k.tries == 0 {
		delete(k.lane.keys, k.id)
	}
}

// wait puts a key into backoff.
func (l *loop) wait(k *key, until time.Time) {
	k.notBefore = until
	heap.Push(&l.waiting, k)
	l.tidy(k)
}

// wakeKeys ends the backoff of keys whose time has come.
func (l *loop) wakeKeys(now time.Time) {
	for len(l.waiting) > 0 && !now.Before(l.waiting[0].notBefore) {
		k := heap.Pop(&l.waiting).(*key)
		k.notBefore = time.Time{}
		if !k.closed {
			l.tidy(k)
			l.list(k)
		}
	}
}

// keyHeap orders keys by the end of their backoff.
type keyHeap []*key

func (h keyHeap) Len() int           { return len(h) }
func (h keyHeap) Less(i, j int) bool { return h[i].notBefore.Before(h[j].notBefore) }
func (h keyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push and Pop are container/heap's.
func (h *keyHeap) Push(x any) {
	k := x.(*key)
	k.at = len(*h)
	*h = append(*h, k)
}

func (h *keyHeap) Pop() any {
	old := *h
	k := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return k
}
