package sqldead

import (
	"context"
	"fmt"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/worker"
)

// Put implements [worker.DeadLetter]. A letter that stands already, in whatever
// state, is left as it is.
func (s *Store) Put(ctx context.Context, l worker.Letter) error {
	if len(l.Handler) > maxHandler || clip(l.Handler, maxHandler) != l.Handler {
		return fmt.Errorf("sqldead: put: handler %q: want at most %d bytes of text", l.Handler, maxHandler)
	}
	text, cut, err := seal(&l)
	if err != nil {
		return fmt.Errorf("sqldead: put: %w", err)
	}
	payload := l.Payload
	if len(payload) > s.opts.MaxPayload {
		payload, cut = payload[:s.opts.MaxPayload], true
	}
	if payload == nil {
		payload = []byte{} // a NULL otherwise
	}
	insert, end := "INSERT INTO", " ON CONFLICT (handler, event_key) DO NOTHING"
	if s.dialect == sqldialect.MySQL {
		insert, end = "INSERT IGNORE INTO", "" // lengths are checked before
	}
	n, err := s.exec(ctx, s.db, insert+` firstcome_dead_letter
		(handler, event_key, state, topic, class, error, attempts, buried_at, changed_at, cut, size, envelope, payload)
		VALUES (?, ?, 'dead', ?, ?, ?, ?, `+s.now+`, `+s.now+`, ?, ?, ?, ?)`+end,
		l.Handler, letterKey(&l), clip(l.Topic, maxTopic), clip(string(l.Class), maxClass), clip(l.Err, maxError), l.Attempts,
		cut, len(l.Payload), text, payload)
	if err != nil {
		return fmt.Errorf("sqldead: put: %w", err)
	}
	if cut && n > 0 {
		s.opts.Logger.ErrorContext(ctx, "sqldead: dead letter is larger than the store keeps, so it can't be requeued",
			"handler", l.Handler, "event", clip(l.EventID, 200), "size", len(l.Payload), "partition", l.Origin.Partition, "offset", l.Origin.Offset)
	}
	return nil
}

// PutBack implements [worker.LetterStore].
func (s *Store) PutBack(ctx context.Context, seq int64, taker string, l worker.Letter) error {
	_, err := s.exec(ctx, s.db, `UPDATE firstcome_dead_letter SET state = 'dead', class = ?, error = ?, attempts = attempts + ?,
		buried_at = `+s.now+`, changed_at = `+s.now+`, taken_by = '', taken_until = 0
		WHERE seq = ? AND state = 'requeued' AND taken_by = ?`,
		clip(string(l.Class), maxClass), clip(l.Err, maxError), l.Attempts, seq, taker)
	if err != nil {
		return fmt.Errorf("sqldead: put back: %w", err)
	}
	return nil
}
