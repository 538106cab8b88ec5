package sqldead

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/firstcome/firstcome/worker"
)

// Letters implements [worker.LetterOperator].
func (s *Store) Letters(ctx context.Context, q worker.LetterQuery) ([]worker.StoredLetter, error) {
	where, args := []string{"l.seq > ?"}, []any{q.After}
	only := func(column, value string) {
		if value != "" {
			where, args = append(where, column+" = ?"), append(args, value)
		}
	}
	if q.State == "" {
		where = append(where, "state IN ('dead', 'requeued')")
	}
	only("state", string(q.State))
	only("l.handler", q.Handler)
	only("topic", clip(q.Topic, maxTopic))
	only("class", string(q.Class))
	out, err := s.list(ctx, false, strings.Join(where, " AND "), page(q.Limit), args...)
	return out, wrap("list", err)
}

// page bounds the length of a listing.
func page(limit int) int {
	if limit <= 0 {
		limit = 100
	}
	return min(limit, 200)
}

// Letter implements [worker.LetterOperator].
func (s *Store) Letter(ctx context.Context, seq int64) (worker.StoredLetter, error) {
	return s.one(ctx, "l.seq = ?", seq)
}

// Find implements [worker.LetterStore].
func (s *Store) Find(ctx context.Context, handler, eventID string) (worker.StoredLetter, error) {
	return s.one(ctx, "l.handler = ? AND event_key = ?", handler, eventKey(eventID))
}

func (s *Store) one(ctx context.Context, where string, args ...any) (worker.StoredLetter, error) {
	out, err := s.list(ctx, true, where, 1, args...)
	switch {
	case err != nil:
		return worker.StoredLetter{}, wrap("read", err)
	case len(out) == 0:
		return worker.StoredLetter{}, wrap("read", worker.ErrNoLetter)
	}
	return out[0], nil
}

func (s *Store) list(ctx context.Context, whole bool, where string, limit int, args ...any) ([]worker.StoredLetter, error) {
	payload := "''"
	if whole {
		payload = "payload"
	}
	var out []worker.StoredLetter
	err := s.query(ctx, func(rows *sql.Rows) error {
		l, err := scan(rows, whole)
		out = append(out, l)
		return err
	}, `SELECT l.seq, l.handler, event_key, state, topic, class, error, attempts, requeues, buried_at, `+s.now+`, taken_until, cut, size,
		envelope, `+payload+`, coalesce(h.seen_at, 0)
		FROM firstcome_dead_letter l LEFT JOIN firstcome_dead_handler h ON h.handler = l.handler
		WHERE `+where+` ORDER BY l.seq LIMIT ?`, append(args, limit)...)
	return out, err
}

func scan(rows *sql.Rows, whole bool) (worker.StoredLetter, error) {
	var l worker.StoredLetter
	var key string
	var buried, now, until, seen int64
	var text, payload []byte
	err := rows.Scan(&l.Seq, &l.Handler, &key, &l.State, &l.Topic, &l.Class, &l.Err, &l.Attempts, &l.Requeues, &buried, &now, &until,
		&l.Cut, &l.Size, &text, &payload, &seen)
	if err != nil {
		return l, err
	}
	if err := unseal(text, &l); err != nil {
		return l, err
	}
	if len(text) == 0 && !strings.HasPrefix(key, hashed) { // a tombstone
		l.EventID = key
	}
	if whole && l.State != worker.LetterDropped {
		l.Payload = payload
	}
	l.At, l.Age = time.UnixMicro(buried).UTC(), micros(now-buried)
	l.Running = l.State == worker.LetterRequeued && until >= now
	l.NoWorker = l.State == worker.LetterRequeued && !l.Running && micros(now-seen) > unseen
	return l, nil
}

// Requeue implements [worker.LetterOperator].
func (s *Store) Requeue(ctx context.Context, seq int64) error {
	n, err := s.exec(ctx, s.db, `UPDATE firstcome_dead_letter SET state = 'requeued', requeues = requeues + 1, changed_at = `+s.now+`,
		taken_by = '', taken_until = 0 WHERE seq = ? AND state = 'dead' AND NOT cut AND handler <> ''`, seq)
	if err != nil {
		return wrap("requeue", err)
	}
	if n > 0 {
		s.tellChanged()
		return nil
	}
	l, err := s.Letter(ctx, seq)
	switch {
	case err != nil:
		return wrap("requeue", err)
	case l.State == worker.LetterDropped:
		return wrap("requeue", worker.ErrNoLetter)
	case l.State == worker.LetterRequeued:
		return wrap("requeue", worker.ErrRequeued)
	case l.Cut:
		return wrap("requeue", errors.Join(worker.ErrNotRequeueable, errors.New("the store had to cut it")))
	default:
		return wrap("requeue", errors.Join(worker.ErrNotRequeueable, errors.New("no handler saw it")))
	}
}

// Drop implements [worker.LetterOperator]. What stays is a tombstone, without
// the event's content.
func (s *Store) Drop(ctx context.Context, seq int64) error {
	n, err := s.exec(ctx, s.db, `UPDATE firstcome_dead_letter SET state = 'dropped', changed_at = `+s.now+`, envelope = '', payload = '',
		taken_by = '', taken_until = 0
		WHERE seq = ? AND (state = 'dead' OR state = 'requeued' AND taken_until < `+s.now+`)`, seq)
	if err != nil || n > 0 {
		return wrap("drop", err)
	}
	l, err := s.Letter(ctx, seq)
	switch {
	case err != nil:
		return wrap("drop", err)
	case l.State == worker.LetterDropped:
		return wrap("drop", worker.ErrNoLetter)
	default:
		return wrap("drop", worker.ErrLetterRunning)
	}
}

// LetterStats implements [worker.LetterOperator], from an index alone.
func (s *Store) LetterStats(ctx context.Context) ([]worker.LetterStats, error) {
	var out []worker.LetterStats
	err := s.query(ctx, func(rows *sql.Rows) error {
		var st worker.LetterStats
		var age int64
		if err := rows.Scan(&st.Topic, &st.Handler, &st.Class, &st.State, &st.Count, &age); err != nil {
			return err
		}
		st.Oldest = micros(age)
		out = append(out, st)
		return nil
	}, `SELECT topic, handler, class, state, count(*), `+s.now+` - min(buried_at) FROM firstcome_dead_letter
		GROUP BY state, topic, handler, class ORDER BY state, topic, handler, class LIMIT 1000`)
	return out, wrap("stats", err)
}
