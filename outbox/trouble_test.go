package outbox_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

// laneMates are keys of one lane: what one waits for, the others read past.
func laneMates(n int) []string {
	var keys []string
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprintf("m%d", i); outbox.LaneOf("orders", key) == 7 {
			keys = append(keys, key)
		}
	}
	return keys
}

// TestRelay_RandomTroubleInOneLane lets a publisher refuse and dawdle,
// an operator requeue, and relays come and go, over keys of one lane; each key's
// order must hold, and nothing be sent twice, lost or left.
func TestRelay_RandomTroubleInOneLaneKeepsOrder(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) { trouble(t, r, seed) })
		})
	}
}

// dice are safe for the publisher's many goroutines.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (d *dice) upTo(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

func trouble(t *testing.T, r *rig, seed uint64) {
	d := &dice{rng: rand.New(rand.NewPCG(seed, 1))}
	var (
		calm   bool
		mu     sync.Mutex
		wrongs = []error{errors.New("no"), outboxtest.ErrPoison, outbox.Unavailable(errors.New("away"))}
	)
	refusals, slow := d.upTo(40), 1+d.upTo(20)
	r.Answer = func(string, *message.Message) error {
		time.Sleep(time.Duration(d.upTo(slow)) * time.Millisecond) // in a bubble
		mu.Lock()
		defer mu.Unlock()
		if !calm && d.upTo(100) < refusals {
			return wrongs[d.upTo(len(wrongs))]
		}
		return nil
	}
	var publisher message.Publisher = r.Recorder
	if seed%2 == 1 {
		publisher = outboxtest.BatchRecorder{Recorder: r.Recorder}
	}
	opts := outbox.Options{MaxMessages: 64 + d.upTo(200), MaxAttempts: 2 + d.upTo(5), LeaseTTL: time.Second, BatchSize: 1 + d.upTo(50),
		Backoff: func(int) time.Duration { return time.Duration(d.upTo(300)) * time.Millisecond }}
	var stops []func() error
	start := func() {
		_, stop := r.relay(r.Memory, publisher, opts)
		stops = append(stops, stop)
	}
	start()
	keys := laneMates(2 + d.upTo(12))
	written := map[string]int{}
	total := 0
	for range 40 {
		for range d.upTo(100) {
			key := keys[min(d.upTo(len(keys)), d.upTo(len(keys)))] // some are hotter
			r.add(msg(key, written[key]))
			written[key]++
			total++
		}
		pass(time.Duration(d.upTo(200)) * time.Millisecond)
		switch d.upTo(12) {
		case 0:
			start()
		case 1:
			if len(stops) > 1 {
				if err := stops[0](); err != nil {
					t.Fatal(err)
				}
				stops = stops[1:]
			}
		case 2:
			requeueAll(t, r)
		}
	}
	mu.Lock()
	calm = true
	mu.Unlock()
	for range 100 {
		pass(3 * time.Second)
		requeueAll(t, r)
		if s := r.stats(); s.Pending+s.Parked+s.Held == 0 {
			break
		}
	}
	outboxtest.InOrder(t, r.Sent())
	s := r.stats()
	equal(t, "sent, repeats among them; relayed; left", []int64{int64(len(r.Sent())), s.Relayed, s.Pending + s.Parked + s.Held}, []int64{int64(total), int64(total), 0})
}

func requeueAll(t *testing.T, r *rig) {
	t.Helper()
	parked, err := r.Parked(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parked {
		if _, err := r.Requeue(t.Context(), p.Seq); err != nil && !errors.Is(err, outbox.ErrNotParked) {
			t.Fatal(err)
		}
	}
}
