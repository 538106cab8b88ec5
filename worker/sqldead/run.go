package sqldead

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/worker"
)

const (
	tellEvery = 30 * time.Second // how often a handler's row is written
	unseen    = 2 * time.Minute  // after it nobody is thought to have the handler
)

// Buried implements [worker.LetterStore]: one look by the unique key.
func (s *Store) Buried(ctx context.Context, handler, eventID string) (bool, error) {
	found := false
	err := s.query(ctx, func(rows *sql.Rows) error {
		found = true
		return nil
	}, `SELECT 1 FROM firstcome_dead_letter WHERE handler = ? AND event_key = ?`, handler, eventKey(eventID))
	if err != nil {
		return false, fmt.Errorf("sqldead: look up event: %w", err)
	}
	return found, nil
}

// Requeued implements [worker.LetterStore].
func (s *Store) Requeued(ctx context.Context, handlers []string, after int64, limit int) ([]worker.StoredLetter, error) {
	if len(handlers) == 0 {
		return nil, nil
	}
	if err := s.tell(ctx, handlers); err != nil {
		return nil, fmt.Errorf("sqldead: note the handlers: %w", err)
	}
	args := []any{after}
	for _, h := range handlers {
		args = append(args, h)
	}
	out, err := s.list(ctx, false, `state = 'requeued' AND taken_until < `+s.now+` AND l.seq > ? AND l.handler IN (`+
		sqldialect.Placeholders(len(handlers))+`)`, page(limit), args...)
	if err != nil {
		return nil, fmt.Errorf("sqldead: requeued: %w", err)
	}
	return out, nil
}

// tell notes that a worker has the handlers, at most every tellEvery.
func (s *Store) tell(ctx context.Context, handlers []string) error {
	upsert := `INSERT INTO firstcome_dead_handler (handler, seen_at) VALUES (?, ` + s.now + `) `
	if s.dialect == sqldialect.MySQL {
		upsert += `ON DUPLICATE KEY UPDATE seen_at = VALUES(seen_at)`
	} else {
		upsert += `ON CONFLICT (handler) DO UPDATE SET seen_at = excluded.seen_at`
	}
	for _, h := range handlers {
		s.mu.Lock()
		due := time.Since(s.told[h]) >= tellEvery
		s.mu.Unlock()
		if !due {
			continue
		}
		if _, err := s.exec(ctx, s.db, upsert, h); err != nil {
			return err
		}
		s.mu.Lock()
		s.told[h] = time.Now()
		s.mu.Unlock()
	}
	return nil
}

// Take implements [worker.LetterStore]. The condition of the update is what
// keeps two workers from having one letter.
func (s *Store) Take(ctx context.Context, seq int64, taker string, lease time.Duration) (worker.StoredLetter, bool, error) {
	n, err := s.exec(ctx, s.db, `UPDATE firstcome_dead_letter SET taken_by = ?, taken_until = `+s.now+` + ?
		WHERE seq = ? AND state = 'requeued' AND (taken_by = ? OR taken_until < `+s.now+`)`,
		taker, lease.Microseconds(), seq, taker)
	if err != nil || n == 0 {
		return worker.StoredLetter{}, false, wrap("take", err)
	}
	l, err := s.Letter(ctx, seq)
	if errors.Is(err, worker.ErrNoLetter) {
		return worker.StoredLetter{}, false, nil
	}
	return l, err == nil, wrap("take", err)
}

const remove = `DELETE FROM firstcome_dead_letter WHERE seq = ? AND state = 'requeued' AND taken_by = ?`

// Remove implements [worker.LetterStore].
func (s *Store) Remove(ctx context.Context, seq int64, taker string) (bool, error) {
	n, err := s.exec(ctx, s.db, remove, seq, taker)
	return n > 0, wrap("remove", err)
}

// RemoveTx is [Store.Remove] in a transaction of the store's database. The row
// is locked until it ends, so nobody takes or drops the letter meanwhile.
func (s *Store) RemoveTx(ctx context.Context, tx *sql.Tx, seq int64, taker string) (bool, error) {
	n, err := s.exec(ctx, tx, remove, seq, taker)
	return n > 0, wrap("remove", err)
}

// Release implements [worker.LetterStore].
func (s *Store) Release(ctx context.Context, seq int64, taker string) error {
	_, err := s.exec(ctx, s.db, `UPDATE firstcome_dead_letter SET taken_by = '', taken_until = 0
		WHERE seq = ? AND state = 'requeued' AND taken_by = ?`, seq, taker)
	return wrap("release", err)
}

// Changed implements [worker.LetterStore].
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *Store) tellChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func wrap(step string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("sqldead: %s: %w", step, err)
}
