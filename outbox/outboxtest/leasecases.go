package outboxtest

import (
	"testing"
	"time"

	"github.com/firstcome/firstcome/outbox"
)

func leaseSpread(t *testing.T, h Harness) {
	s := h.New(t)
	first := lease(t, s, "a", time.Minute)
	same(t, "alone", len(first.Lanes), outbox.Lanes)
	second := lease(t, s, "b", time.Minute)
	same(t, "relays", second.Relays, 2)
	same(t, "free for the second", len(second.Lanes), 0)
	var release []int
	epochs := map[int]int64{}
	for _, l := range first.Lanes[:outbox.Lanes/2] {
		release = append(release, l.Lane)
		epochs[l.Lane] = l.Epoch
	}
	same(t, "kept", len(lease(t, s, "a", time.Minute, release...).Lanes), outbox.Lanes/2)
	second = lease(t, s, "b", time.Minute)
	same(t, "taken", len(second.Lanes), outbox.Lanes/2)
	for _, l := range second.Lanes {
		if before, ok := epochs[l.Lane]; !ok || l.Epoch <= before {
			t.Fatalf("lane %d has epoch %d after %d", l.Lane, l.Epoch, before)
		}
	}
	again := lease(t, s, "b", time.Minute)
	same(t, "renewed without a new epoch", again.Lanes, second.Lanes)
}

func leaseDead(t *testing.T, h Harness) {
	s := h.New(t)
	dead := lease(t, s, "dead", 300*time.Millisecond)
	start := time.Now()
	same(t, "while it may live", len(lease(t, s, "b", time.Minute).Lanes), 0)
	var took outbox.Leases
	eventually(t, "all lanes taken over", func() bool {
		took = lease(t, s, "b", time.Minute)
		return len(took.Lanes) == outbox.Lanes
	})
	if waited := time.Since(start); waited < 200*time.Millisecond {
		t.Fatalf("taken over after %v already", waited)
	}
	same(t, "epoch", took.Lanes[0].Epoch, dead.Lanes[0].Epoch+1)
	same(t, "relays", took.Relays, 1)
}

func leaseLeave(t *testing.T, h Harness) {
	s := h.New(t)
	owner(t, s, "a")
	must(t, s.Store.Leave(t.Context(), "a", []int{3, 63}))
	must(t, s.Store.Leave(t.Context(), "a", []int{3, 63}))
	must(t, s.Store.Leave(t.Context(), "nobody", nil))
	took := lease(t, s, "b", time.Minute)
	same(t, "relays", took.Relays, 1)
	same(t, "taken", len(took.Lanes), outbox.Lanes-2)
	for _, l := range took.Lanes {
		if l.Lane == 3 || l.Lane == 63 {
			t.Fatalf("lane %d was taken", l.Lane)
		}
	}
}
