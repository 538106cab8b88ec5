package worker_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/worker"
)

// silentStore lists requeued letters, and never answers anything else, but for
// the letters of one handler.
type silentStore struct {
	worker.LetterStore // nil: what is not below is not called
	requeued           []worker.StoredLetter
	answers            string
	read               int // letters listed
}

func (s *silentStore) add(n int, handler, key string) {
	for range n {
		id := len(s.requeued) + 1
		s.requeued = append(s.requeued, worker.StoredLetter{Seq: int64(id), Letter: worker.Letter{
			Handler: handler, Topic: topic, EventID: fmt.Sprint(id), Payload: []byte(`{}`), Metadata: map[string]string{worker.MetaKey: key},
		}})
	}
}

func (s *silentStore) Changed() <-chan struct{} { return nil }

func (s *silentStore) Requeued(_ context.Context, handlers []string, after int64, limit int) (page []worker.StoredLetter, _ error) {
	for _, l := range s.requeued[min(after, int64(len(s.requeued))):] {
		if len(page) < limit && slices.Contains(handlers, l.Handler) {
			page = append(page, l)
		}
	}
	s.read += len(page)
	return page, nil
}

func (s *silentStore) Take(ctx context.Context, seq int64, _ string, _ time.Duration) (worker.StoredLetter, bool, error) {
	if l := s.requeued[seq-1]; l.Handler == s.answers {
		return l, true, nil
	}
	<-ctx.Done()
	return worker.StoredLetter{}, false, ctx.Err()
}

func (s *silentStore) Remove(context.Context, int64, string) (bool, error) { return true, nil }

func (s *silentStore) Release(ctx context.Context, _ int64, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// Of the letters of one key a worker has one in its hand. A stop lets go of that
// one, and asks nothing for the others.
func TestStop_WithManyRequeuedLettersOfAKey_IsPromptWhileTheirStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &silentStore{}
		s.add(100, "h", "k")
		w, err := worker.New(&broker{}, newInbox(), s, &worker.Options{Timeout: time.Second})
		must(t, err)
		must(t, worker.Handle(w, "h", topic, new(site).handle))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(time.Minute)
		began := time.Now()
		cancel()
		err = <-ended
		if took := time.Since(began); err != nil || took > 5*time.Second {
			t.Errorf("the stop took %v: %v", took, err)
		}
		time.Sleep(10 * time.Minute) // what it left behind
	})
}

// A handler in an outage does not take all places for requeued letters.
func TestRequeuedLetters_OfAHandlerInAnOutage_HoldUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &silentStore{answers: "up"}
		s.add(1000, "down", "k")
		s.add(1, "up", "k")
		w, err := worker.New(&broker{}, newInbox(), s, &worker.Options{Timeout: time.Second})
		must(t, err)
		up := new(site)
		must(t, worker.Handle(w, "down", topic, new(site).handle))
		must(t, worker.Handle(w, "up", topic, up.handle))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(2 * time.Second) // one look at the store
		if n, _ := up.counts(); n != 1 || s.read > 300 {
			t.Errorf("%d are finished, after %d were read", n, s.read)
		}
		cancel()
		must(t, <-ended)
	})
}
