package outbox_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// bench is one test's relay on a store in memory, inside a bubble: its clock
// jumps when all wait, and nothing sleeps.
type rig struct {
	*outboxtest.Memory
	*outboxtest.Recorder
	t testing.TB
}

// bubble runs a test with a rig of its own.
func bubble(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, &rig{Memory: outboxtest.NewMemory(), Recorder: outboxtest.NewRecorder(nil), t: t})
	})
}

// relay starts a relay on a store and publisher and returns what stops it.
func (r *rig) relay(store outbox.Store, pub message.Publisher, opts outbox.Options) (relay *outbox.Relay, stop func() error) {
	r.t.Helper()
	opts.Logger = quiet
	relay, err := outbox.NewRelay(store, pub, []string{"orders"}, &opts)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var (
		once sync.Once
		done = make(chan struct{})
	)
	go func() {
		err = relay.Run(ctx)
		close(done)
	}()
	stop = func() error {
		once.Do(cancel)
		<-done
		return err
	}
	r.t.Cleanup(func() { _ = stop() })
	return relay, stop
}

func (r *rig) start(opts outbox.Options) (relay *outbox.Relay, stop func() error) {
	r.t.Helper()
	return r.relay(r.Memory, r.Recorder, opts)
}

func (r *rig) add(msgs ...outbox.Message) {
	r.t.Helper()
	if err := r.Add(context.Background(), msgs...); err != nil {
		r.t.Fatal(err)
	}
}

// stats are the store's.
func (r *rig) stats() outbox.Stats {
	r.t.Helper()
	s, err := r.Stats(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// pass lets time pass in the bubble.
func pass(d time.Duration) {
	time.Sleep(d) // in a bubble: no waiting
	synctest.Wait()
}
