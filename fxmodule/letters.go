package fxmodule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/fx"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqldead"
)

// DeadLetters provides *sqldead.Store, worker.LetterStore and worker.DeadLetter
// from a [Database], and runs its cleaning and its gauges.
func DeadLetters(opts *sqldead.Options) fx.Option {
	return fx.Module("firstcome.deadletters",
		fx.Provide(func(db Database) (*sqldead.Store, worker.LetterStore, worker.DeadLetter, error) {
			s, err := sqldead.New(db.DB, db.Dialect, opts)
			return s, s, s, err
		}),
		fx.Invoke(func(lc fx.Lifecycle, sd fx.Shutdowner, s *sqldead.Store) error {
			m, err := worker.NewLetterMonitor(s, "worker", nil)
			if err != nil {
				return err
			}
			Loop(lc, sd, "dead letters", s.Run)
			Loop(lc, sd, "dead letter gauges", m.Run)
			return nil
		}),
	)
}

// The classes of a parked message as a letter.
const (
	ClassParked worker.Class = "parked" // the broker refused it
	ClassHeld   worker.Class = "held"   // it waits behind a parked one of its key
)

// ParkedLetters shows the messages that an outbox has parked as dead letters, so
// that one tool looks after both. It needs no Fx application.
//
// A parked message has no handler, no origin and no worker: Handler, Origin,
// Requeues, Running and NoWorker are empty, and its state is always dead. Requeue
// puts it back into the outbox's queue, with those held behind it; one that is
// held can't be requeued by itself. Drop leaves no tombstone, since no broker has
// it. Topic, handler and class are selected from each page after it was read, so
// a page may be shorter than its limit; State selects all or nothing. The age in
// the statistics is that of the oldest of the first 200.
func ParkedLetters(parked interface {
	outbox.Operator
	Stats(ctx context.Context) (outbox.Stats, error)
}) worker.LetterOperator {
	return parkedLetters{parked}
}

type parkedLetters struct {
	outbox interface {
		outbox.Operator
		Stats(ctx context.Context) (outbox.Stats, error)
	}
}

const parkedPage = 200

// Letters implements worker.LetterOperator. It reads on where what it read was
// not selected, so that an empty page means that there is no more.
func (p parkedLetters) Letters(ctx context.Context, q worker.LetterQuery) ([]worker.StoredLetter, error) {
	if q.State != "" && q.State != worker.LetterDead {
		return nil, nil
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, parkedPage)
	for after := q.After; ; {
		read, err := p.outbox.Parked(ctx, after, limit)
		if err != nil || len(read) == 0 {
			return nil, err
		}
		var out []worker.StoredLetter
		for i := range read {
			after = read[i].Seq
			l := parkedLetter(&read[i])
			l.Payload = nil
			if q.Handler == "" && (q.Topic == "" || q.Topic == l.Topic) && (q.Class == "" || q.Class == l.Class) {
				out = append(out, l)
			}
		}
		if len(out) > 0 || len(read) < limit {
			return out, nil
		}
	}
}

// Letter implements worker.LetterOperator.
func (p parkedLetters) Letter(ctx context.Context, seq int64) (worker.StoredLetter, error) {
	read, err := p.outbox.Parked(ctx, seq-1, 1)
	switch {
	case err != nil:
		return worker.StoredLetter{}, err
	case len(read) == 0 || read[0].Seq != seq:
		return worker.StoredLetter{}, worker.ErrNoLetter
	}
	return parkedLetter(&read[0]), nil
}

func parkedLetter(p *outbox.ParkedMessage) worker.StoredLetter {
	l := worker.StoredLetter{
		Letter: worker.Letter{
			Topic: p.Message.Topic, EventID: p.Message.ID, Key: p.Message.Key, Payload: p.Message.Payload,
			Metadata: p.Message.Headers, Class: ClassParked, Err: p.Reason, Attempts: p.Attempts, At: time.Now().Add(-p.Age).UTC(),
		},
		Seq: p.Seq, State: worker.LetterDead, Size: int64(len(p.Message.Payload)), Age: p.Age,
	}
	if p.Held {
		l.Class = ClassHeld
	}
	return l
}

// Requeue implements worker.LetterOperator.
func (p parkedLetters) Requeue(ctx context.Context, seq int64) error {
	l, err := p.Letter(ctx, seq)
	switch {
	case err != nil:
		return err
	case l.Class == ClassHeld:
		return fmt.Errorf("%w: it waits behind another one of its key", worker.ErrNotRequeueable)
	}
	_, err = p.outbox.Requeue(ctx, seq)
	return asLetter(err)
}

// Drop implements worker.LetterOperator.
func (p parkedLetters) Drop(ctx context.Context, seq int64) error {
	return asLetter(p.outbox.Drop(ctx, seq))
}

func asLetter(err error) error {
	if errors.Is(err, outbox.ErrNotParked) {
		return fmt.Errorf("%w: %w", worker.ErrNoLetter, err)
	}
	return err
}

// LetterStats implements worker.LetterOperator.
func (p parkedLetters) LetterStats(ctx context.Context) ([]worker.LetterStats, error) {
	s, err := p.outbox.Stats(ctx)
	if err != nil || s.Parked+s.Held == 0 {
		return nil, err
	}
	first, err := p.outbox.Parked(ctx, 0, parkedPage)
	if err != nil {
		return nil, err
	}
	oldest := map[bool]time.Duration{}
	for i := range first {
		oldest[first[i].Held] = max(oldest[first[i].Held], first[i].Age)
	}
	var out []worker.LetterStats
	for _, group := range []worker.LetterStats{
		{Class: ClassParked, State: worker.LetterDead, Count: s.Parked, Oldest: oldest[false]},
		{Class: ClassHeld, State: worker.LetterDead, Count: s.Held, Oldest: oldest[true]},
	} {
		if group.Count > 0 {
			out = append(out, group)
		}
	}
	return out, nil
}
