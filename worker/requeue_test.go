package worker_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/worker"
)

// silentStore lists requeued letters, and never answers anything else.
type silentStore struct {
	worker.LetterStore // nil: what is not below is not called
	requeued           []worker.StoredLetter
}

func (s *silentStore) Changed() <-chan struct{} { return nil }

func (s *silentStore) Requeued(_ context.Context, _ []string, after int64, limit int) ([]worker.StoredLetter, error) {
	after = min(after, int64(len(s.requeued)))
	return s.requeued[after:min(after+int64(limit), int64(len(s.requeued)))], nil
}

func (s *silentStore) Take(ctx context.Context, _ int64, _ string, _ time.Duration) (worker.StoredLetter, bool, error) {
	<-ctx.Done()
	return worker.StoredLetter{}, false, ctx.Err()
}

func (s *silentStore) Release(ctx context.Context, _ int64, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// Of the letters of one key a worker has one in its hand. A stop lets go of that
// one, and asks nothing for the others.
func TestStop_WithManyRequeuedLettersOfAKey_IsPromptWhileTheirStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &silentStore{}
		for i := range 100 {
			s.requeued = append(s.requeued, worker.StoredLetter{Seq: int64(i + 1), Letter: worker.Letter{
				Handler: "h", Topic: topic, EventID: fmt.Sprint(i), Metadata: map[string]string{worker.MetaKey: "k"},
			}})
		}
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
