package outboxtest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
)

var _ message.Publisher = (*Recorder)(nil)

// Recorder is a publisher that keeps what it accepted, in order.
type Recorder struct {
	// Answer, when set, decides about each message; nil accepts it. It may
	// block, and is called by many goroutines at once.
	Answer func(topic string, msg *message.Message) error

	mu     sync.Mutex
	sent   []Sent
	change chan struct{}
}

// Sent is one accepted message.
type Sent struct {
	ID, Topic, Key string
	Payload        string
	Metadata       message.Metadata
}

// NewRecorder returns a publisher that accepts everything that answer, which may
// be nil, does.
func NewRecorder(answer func(topic string, msg *message.Message) error) *Recorder {
	return &Recorder{Answer: answer, change: make(chan struct{})}
}

// Publish implements message.Publisher.
func (r *Recorder) Publish(topic string, msgs ...*message.Message) error {
	for _, msg := range msgs {
		if r.Answer != nil {
			if err := r.Answer(topic, msg); err != nil {
				return err
			}
		}
		r.Keep(topic, msg)
	}
	return nil
}

// Keep notes a message as accepted, without asking Answer.
func (r *Recorder) Keep(topic string, msg *message.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, Sent{ID: msg.UUID, Topic: topic, Key: msg.Metadata[outbox.MetadataKey],
		Payload: string(msg.Payload), Metadata: msg.Copy().Metadata})
	close(r.change)
	r.change = make(chan struct{})
}

// Close implements message.Publisher; it does nothing.
func (r *Recorder) Close() error { return nil }

// Sent returns what was accepted so far.
func (r *Recorder) Sent() []Sent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Sent(nil), r.sent...)
}

// IDs returns the IDs accepted so far; of one key, or of all with "".
func (r *Recorder) IDs(key string) []string {
	var ids []string
	for _, s := range r.Sent() {
		if key == "" || s.Key == key {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// Wait returns what was accepted when ok holds for it, and fails the test after
// half a minute.
func (r *Recorder) Wait(t testing.TB, ok func([]Sent) bool) []Sent {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		r.mu.Lock()
		sent, change := append([]Sent(nil), r.sent...), r.change
		r.mu.Unlock()
		if ok(sent) {
			return sent
		}
		select {
		case <-change:
		case <-timeout:
			t.Fatalf("after half a minute %d messages were accepted", len(sent))
		}
	}
}

// AtLeast is a condition for [Recorder.Wait]: n different IDs.
func AtLeast(n int) func([]Sent) bool {
	return func(sent []Sent) bool {
		if len(sent) < n {
			return false
		}
		seen := map[string]bool{}
		for _, s := range sent {
			seen[s.ID] = true
		}
		return len(seen) >= n
	}
}

// FirstOfEach removes repeats by ID, as a consumer does.
func FirstOfEach(sent []Sent) []Sent {
	var out []Sent
	seen := map[string]bool{}
	for _, s := range sent {
		if !seen[s.ID] {
			seen[s.ID] = true
			out = append(out, s)
		}
	}
	return out
}

// BatchRecorder is a [Recorder] that takes batches and keeps their promise: a
// key is stopped at its first refusal.
type BatchRecorder struct{ *Recorder }

var _ outbox.BatchPublisher = BatchRecorder{}

// PublishBatch implements outbox.BatchPublisher.
func (b BatchRecorder) PublishBatch(_ context.Context, batch []*message.Message) []error {
	errs := make([]error, len(batch))
	stopped := map[[2]string]bool{}
	for i, msg := range batch {
		id := [2]string{msg.Metadata[outbox.MetadataTopic], msg.Metadata[outbox.MetadataKey]}
		if stopped[id] {
			errs[i] = outbox.ErrSkipped
			continue
		}
		errs[i] = b.Publish(id[0], msg)
		stopped[id] = errs[i] != nil
	}
	return errs
}

// ErrPoison is a refusal that tests give to messages that shall never pass.
var ErrPoison = outbox.Refused(errors.New("poison"))
