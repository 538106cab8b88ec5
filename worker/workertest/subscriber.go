package workertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/worker"
)

// SubscriberParts is what the suite needs of one transport.
type SubscriberParts struct {
	// New makes the subscriber of one more process of a group. The suite closes it.
	New func(t *testing.T, group string) message.Subscriber
	// Publisher sends to the same broker, keyed by worker.MetaKey.
	Publisher message.Publisher
	// Topic is a fresh topic.
	Topic string
	// PublishRaw sends bytes to the topic that New's subscribers cannot decode.
	PublishRaw func(t *testing.T, raw string)
}

// patience is how long a real broker may take for what should be at once.
const patience = 60 * time.Second

// Subscriber runs the suite. parts is called once per test.
func Subscriber(t *testing.T, parts func(t *testing.T) SubscriberParts) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p SubscriberParts)
	}{
		{"NewGroup_StartsAtTheOldest", startsAtTheOldest},
		{"Keys_ComeInOrder_EachEventOnce", keysInOrder},
		{"UndecodableBytes_GoToTheDeadLetters_AndTheLineGoesOn", undecodable},
		{"Stop_AcknowledgesWhatFinished_AndLeavesTheRest", stopAcknowledges},
		{"EachGroup_GetsEveryEvent", eachGroup},
		{"TwoWorkers_ShareTheWork_EachEventOnce", twoWorkers},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, parts(t)) })
	}
}

func startsAtTheOldest(t *testing.T, p SubscriberParts) {
	p.publish(t, 0, 10)
	s := newSite()
	p.process(t, "g", s, nil)
	s.await(t, 10)
	s.wantOnce(t, 10)
}

func keysInOrder(t *testing.T, p SubscriberParts) {
	s := newSite()
	p.process(t, "g", s, func(e worker.Event[Job]) error {
		if e.Payload.N%11 == 0 && e.Attempt < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	p.publish(t, 0, 120)
	s.await(t, 120)
	s.wantOnce(t, 120)
	last := map[int]int{}
	for _, n := range s.effects() {
		if before, had := last[n%keys]; had && n < before {
			t.Errorf("key %d: %d came after %d", n%keys, n, before)
		}
		last[n%keys] = n
	}
}

func undecodable(t *testing.T, p SubscriberParts) {
	s := newSite()
	p.publish(t, 0, 5)
	p.PublishRaw(t, "\x00\xff raw bytes")
	p.publish(t, 5, 10)
	p.process(t, "g", s, nil)
	s.await(t, 10)
	s.wantOnce(t, 10)
	letter := s.letter(t)
	if letter.Class != worker.ClassUndecodable || letter.EventID == "" ||
		letter.Origin.Topic != p.Topic || letter.Origin.Offset == "" {
		t.Errorf("the letter lacks its origin: %+v", letter)
	}
	if string(letter.Payload) != "\x00\xff raw bytes" {
		t.Errorf("the letter's bytes are %q", letter.Payload)
	}
}

func stopAcknowledges(t *testing.T, p SubscriberParts) {
	s := newSite()
	inside, goOn := make(chan struct{}), make(chan struct{})
	block := sync.OnceFunc(func() {
		close(inside)
		<-goOn
	})
	p.publish(t, 0, 10)
	stop := p.process(t, "g", s, func(e worker.Event[Job]) error {
		if e.Payload.N == 3 {
			block()
		}
		return nil
	})
	waitFor(t, inside, "the handler of event 3")
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	close(goOn)
	ok(t, <-stopped)
	p.process(t, "g", s, nil)
	s.await(t, 10)
	s.wantOnce(t, 10)
	if n := s.deliveries(3); n != 1 {
		t.Errorf("event 3 finished during the stop and was delivered %d times", n)
	}
}

func eachGroup(t *testing.T, p SubscriberParts) {
	a, b := newSite(), newSite()
	p.process(t, "a", a, nil)
	p.process(t, "b", b, nil)
	p.publish(t, 0, 10)
	a.await(t, 10)
	b.await(t, 10)
	a.wantOnce(t, 10)
	b.wantOnce(t, 10)
}

func twoWorkers(t *testing.T, p SubscriberParts) {
	s := newSite()
	p.publish(t, 0, 50)
	p.process(t, "g", s, nil)
	p.process(t, "g", s, nil)
	p.publish(t, 50, 200)
	s.await(t, 200)
	s.wantOnce(t, 200)
}

// keys is how many keys the suite's events spread over.
const keys = 6

// Job is what the suite's events hold.
type Job struct{ N int }

// Event is the n-th message of a suite, as an outbox would write it.
func Event(topic string, n int) *message.Message {
	payload, err := json.Marshal(Job{n})
	if err != nil {
		panic(err) // a struct of one number
	}
	msg := message.NewMessage(fmt.Sprintf("event-%d", n), payload)
	msg.Metadata.Set(worker.MetaKey, fmt.Sprintf("key-%d", n%keys))
	msg.Metadata.Set(worker.MetaFormat, worker.Format)
	msg.Metadata.Set(worker.MetaTopic, topic)
	return msg
}

func (p SubscriberParts) publish(t *testing.T, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		ok(t, p.Publisher.Publish(p.Topic, Event(p.Topic, n)))
	}
}

// process runs a worker with a subscriber of its own until the test ends or the
// returned function is called.
func (p SubscriberParts) process(t *testing.T, group string, s *site, also func(worker.Event[Job]) error) (stop func() error) {
	t.Helper()
	sub := p.New(t, group)
	w, err := worker.New(sub, s, s, &worker.Options{Retry: func(int) time.Duration { return time.Millisecond }})
	ok(t, err)
	ok(t, worker.Handle(w, "job", p.Topic, func(_ context.Context, e worker.Event[Job]) error {
		s.delivered(e.Payload.N)
		if also != nil {
			if err := also(e); err != nil {
				return err
			}
		}
		s.effect(e.Payload.N)
		return nil
	}))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return errors.Join(<-ended, sub.Close())
	})
	t.Cleanup(func() { ok(t, stop()) })
	return stop
}

// site is inbox, dead letters and effects of one test, in memory.
type site struct {
	mu      sync.Mutex
	done    map[string]bool
	did     []int
	given   map[int]int
	letters []worker.Letter
	changed chan struct{}
}

var (
	_ worker.Inbox      = (*site)(nil)
	_ worker.DeadLetter = (*site)(nil)
)

func newSite() *site {
	return &site{done: map[string]bool{}, given: map[int]int{}, changed: make(chan struct{}, 1)}
}

// Seen implements [worker.Inbox].
func (s *site) Seen(_ context.Context, handler, id string) (seen bool, err error) {
	s.change(func() { seen = s.done[handler+"/"+id] })
	return seen, nil
}

// Mark implements [worker.Inbox].
func (s *site) Mark(_ context.Context, handler, id string) error {
	s.change(func() { s.done[handler+"/"+id] = true })
	return nil
}

// Put implements [worker.DeadLetter].
func (s *site) Put(_ context.Context, letter worker.Letter) error {
	s.change(func() { s.letters = append(s.letters, letter) })
	return nil
}

func (s *site) effect(n int)    { s.change(func() { s.did = append(s.did, n) }) }
func (s *site) delivered(n int) { s.change(func() { s.given[n]++ }) }

func (s *site) change(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *site) effects() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.did)
}

func (s *site) deliveries(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.given[n]
}

// await waits until so many events took effect.
func (s *site) await(t *testing.T, events int) {
	t.Helper()
	s.until(t, fmt.Sprintf("%d effects", events), func() bool { return len(s.did) >= events })
}

// letter waits for the one dead letter.
func (s *site) letter(t *testing.T) worker.Letter {
	t.Helper()
	s.until(t, "a dead letter", func() bool { return len(s.letters) > 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.letters) != 1 {
		t.Errorf("%d dead letters, want 1", len(s.letters))
	}
	return s.letters[0]
}

func (s *site) until(t *testing.T, what string, reached func() bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		s.mu.Lock()
		yes, did, letters := reached(), len(s.did), len(s.letters)
		s.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-s.changed:
		case <-timer.C:
			t.Fatalf("waited %v for %s; %d effects, %d dead letters", patience, what, did, letters)
		}
	}
}

// wantOnce checks that each of the first events took effect once.
func (s *site) wantOnce(t *testing.T, events int) {
	t.Helper()
	counts := map[int]int{}
	for _, n := range s.effects() {
		counts[n]++
	}
	for n := range events {
		if counts[n] != 1 {
			t.Errorf("event %d took effect %d times", n, counts[n])
		}
	}
	if len(counts) != events {
		t.Errorf("%d events took effect, want %d", len(counts), events)
	}
}

func waitFor(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		t.Fatalf("waited %v for %s", patience, what)
	}
}
