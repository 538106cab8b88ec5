package outboxtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
)

// brisk makes leases short enough for a test to see them end.
var brisk = outbox.Options{LeaseTTL: 400 * time.Millisecond, PollInterval: 20 * time.Millisecond}

func relaysDeliver(t *testing.T, h Harness) {
	s := h.New(t)
	publishing := sync.Map{} // key: a publisher at a time
	rec := NewRecorder(func(_ string, msg *message.Message) error {
		key := msg.Metadata[outbox.MetadataKey]
		if _, twice := publishing.LoadOrStore(key, true); twice {
			t.Errorf("key %s has two publishers at a time", key)
		}
		publishing.Delete(key)
		return nil
	})
	steady := outbox.Options{PollInterval: 20 * time.Millisecond, LeaseTTL: 4 * time.Second}
	for range 3 {
		start(t, s, rec, steady)
	}
	eventually(t, "three relays alive", func() bool {
		st, err := s.Store.Stats(t.Context())
		return err == nil && st.Relays == 3
	})
	const keys, each = 20, 50
	for n := range each {
		batch := []outbox.Message{}
		for k := range keys {
			batch = append(batch, Msg(fmt.Sprintf("k%d", k), n))
		}
		write(t, s, batch...)
	}
	sent := rec.Wait(t, AtLeast(keys*each))
	same(t, "messages, repeats among them", len(sent), keys*each)
	InOrder(t, sent)
	eventually(t, "all settled", func() bool {
		st, err := s.Store.Stats(t.Context())
		return err == nil && st.Pending == 0 && st.Relayed == keys*each
	})
}

// InOrder fails the test where, after removing repeats by ID, a key's messages
// made by [Msg] do not stand in the order of their numbers, from 0, without a gap.
func InOrder(t testing.TB, sent []Sent) {
	t.Helper()
	next := map[string]int{}
	for _, s := range FirstOfEach(sent) {
		if want := fmt.Sprintf("%s/%d", s.Key, next[s.Key]); s.ID != want {
			t.Fatalf("key %s: %s came when %s was due", s.Key, s.ID, want)
		}
		next[s.Key]++
	}
}

func relaysTakeOver(t *testing.T, h Harness) {
	s := h.New(t)
	rec := NewRecorder(nil)
	_, stop := start(t, s, rec, brisk)
	start(t, s, rec, brisk)
	eventually(t, "all lanes owned by two", func() bool {
		st, err := s.Store.Stats(t.Context())
		return err == nil && st.Relays == 2 && st.Owned == outbox.Lanes
	})
	ctx := context.WithoutCancel(t.Context())
	for n := range 30 {
		if n == 10 {
			stop()
		}
		tx := s.Begin(t)
		for k := range 10 {
			must(t, tx.Add(ctx, Msg(fmt.Sprintf("k%d", k), n)))
		}
		must(t, tx.Commit())
	}
	InOrder(t, rec.Wait(t, AtLeast(300)))
}

func relayPoison(t *testing.T, h Harness) {
	s := h.New(t)
	rec := NewRecorder(nil)
	poison := true
	var mu sync.Mutex
	rec.Answer = func(_ string, msg *message.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if poison && msg.UUID == "bad/1" {
			return ErrPoison
		}
		return nil
	}
	opts := brisk
	opts.MaxAttempts, opts.Backoff = 3, func(int) time.Duration { return time.Millisecond }
	start(t, s, rec, opts)
	for n := range 5 {
		write(t, s, Msg("bad", n), Msg("good", n))
	}
	rec.Wait(t, func([]Sent) bool { return len(rec.IDs("good")) == 5 })
	eventually(t, "one parked, three held", func() bool {
		st, err := s.Store.Stats(t.Context())
		return err == nil && st.Parked == 1 && st.Held == 3
	})
	same(t, "sent of the bad key", rec.IDs("bad"), []string{"bad/0"})
	list, err := s.Store.Parked(t.Context(), 0, 1)
	must(t, err)
	same(t, "attempts", list[0].Attempts, 3)
	same(t, "reason", list[0].Reason, "poison")

	mu.Lock()
	poison = false
	mu.Unlock()
	_, err = s.Store.Requeue(t.Context(), list[0].Seq)
	must(t, err)
	InOrder(t, rec.Wait(t, AtLeast(10)))
}
