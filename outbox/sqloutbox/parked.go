package sqloutbox

import (
	"context"
	"database/sql"
	"fmt"
	"math"

	"github.com/firstcome/firstcome/outbox"
)

// Parked implements [outbox.Operator].
func (s *Store) Parked(ctx context.Context, after int64, limit int) ([]outbox.ParkedMessage, error) {
	if limit <= 0 {
		limit = 100
	}
	var out []outbox.ParkedMessage
	err := s.query(ctx, s.db, func(rows *sql.Rows) error {
		var (
			p       outbox.ParkedMessage
			headers string
			ms      int64
		)
		err := rows.Scan(&p.Seq, &p.Message.Topic, &p.Message.Key, &p.Message.ID, &headers, &p.Message.Payload,
			&p.Held, &p.Attempts, &p.Reason, &ms)
		if err != nil {
			return err
		}
		p.Age = age(ms)
		p.Message.Headers, _ = decodeHeaders(headers) // unreadable ones are why it is here; Reason tells
		out = append(out, p)
		return nil
	}, `SELECT seq, topic, msg_key, id, headers, payload, held, attempts, reason, `+s.now+` - parked_at
		FROM firstcome_outbox_parked WHERE seq > ? ORDER BY seq LIMIT ?`, after, min(limit, 1000))
	if err != nil {
		return nil, fmt.Errorf("sqloutbox: parked: %w", err)
	}
	return out, nil
}

// Requeue implements [outbox.Operator].
func (s *Store) Requeue(ctx context.Context, seq int64) (int, error) {
	moved := int64(0)
	err := s.onParked(ctx, seq, func(tx *sql.Tx, p place) error {
		if p.held {
			return fmt.Errorf("%w: it waits behind another one of its key", outbox.ErrNotParked)
		}
		end, err := s.heldUntil(ctx, tx, p)
		if err != nil {
			return err
		}
		moved, err = s.moveBack(ctx, tx, p, p.seq, end)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sqloutbox: requeue: %w", err)
	}
	return int(moved), nil
}

// Drop implements [outbox.Operator].
func (s *Store) Drop(ctx context.Context, seq int64) error {
	err := s.onParked(ctx, seq, func(tx *sql.Tx, p place) error {
		end, err := s.heldUntil(ctx, tx, p)
		if err != nil {
			return err
		}
		if _, err := s.exec(ctx, tx, "DELETE FROM firstcome_outbox_parked WHERE seq = ?", p.seq); err != nil {
			return err
		}
		if _, err := s.exec(ctx, tx, "UPDATE firstcome_outbox_lane SET dropped = dropped + 1 WHERE lane = ?", p.lane); err != nil {
			return err
		}
		if p.held {
			return nil // the others still wait for the one that was given up
		}
		first, err := s.nothingBefore(ctx, tx, p)
		if err != nil || !first {
			return err
		}
		_, err = s.moveBack(ctx, tx, p, p.seq+1, end)
		return err
	})
	if err != nil {
		return fmt.Errorf("sqloutbox: drop: %w", err)
	}
	return nil
}

// place is where a parked message stands.
type place struct {
	lane, seq  int64
	topic, key string
	held       bool
}

// onParked locks the lane of a parked message, raising its rewinds so that the
// relay starts again from the lane's beginning and no Park that read before
// this can take effect after it, and looks again under the lock.
func (s *Store) onParked(ctx context.Context, seq int64, work func(*sql.Tx, place) error) error {
	seen, err := s.place(ctx, s.db, seq)
	if err != nil {
		return err
	}
	return s.inTx(ctx, false, func(tx *sql.Tx) error {
		if _, err := s.exec(ctx, tx, "UPDATE firstcome_outbox_lane SET rewinds = rewinds + 1 WHERE lane = ?", seen.lane); err != nil {
			return err
		}
		now, err := s.place(ctx, tx, seq)
		if err != nil {
			return err
		}
		return work(tx, now)
	})
}

func (s *Store) place(ctx context.Context, db Executor, seq int64) (place, error) {
	p := place{seq: -1}
	err := s.query(ctx, db, func(rows *sql.Rows) error { return rows.Scan(&p.lane, &p.seq, &p.topic, &p.key, &p.held) },
		"SELECT lane, seq, topic, msg_key, held FROM firstcome_outbox_parked WHERE seq = ?", seq)
	if err == nil && p.seq != seq {
		err = outbox.ErrNotParked
	}
	return p, err
}

// heldUntil is the last seq that waits behind p and not behind a later one that
// was given up itself.
func (s *Store) heldUntil(ctx context.Context, tx *sql.Tx, p place) (int64, error) {
	next := sql.NullInt64{}
	err := s.query(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(&next) },
		"SELECT min(seq) FROM firstcome_outbox_parked WHERE lane = ? AND topic = ? AND msg_key = ? AND seq > ? AND NOT held",
		p.lane, p.topic, p.key, p.seq)
	if err != nil || !next.Valid {
		return math.MaxInt64, err
	}
	return next.Int64 - 1, nil
}

// nothingBefore reports whether no earlier message of the key is parked.
func (s *Store) nothingBefore(ctx context.Context, tx *sql.Tx, p place) (bool, error) {
	n := 0
	err := s.query(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(&n) },
		"SELECT count(*) FROM firstcome_outbox_parked WHERE lane = ? AND topic = ? AND msg_key = ? AND seq < ?", p.lane, p.topic, p.key, p.seq)
	return n == 0, err
}

// moveBack puts parked rows of a key back where they stood.
func (s *Store) moveBack(ctx context.Context, tx *sql.Tx, p place, from, to int64) (int64, error) {
	const which = " FROM firstcome_outbox_parked WHERE lane = ? AND topic = ? AND msg_key = ? AND seq >= ? AND seq <= ?"
	moved, err := s.exec(ctx, tx, "INSERT INTO firstcome_outbox ("+stored+") SELECT "+stored+which, p.lane, p.topic, p.key, from, to)
	if err != nil {
		return 0, err
	}
	_, err = s.exec(ctx, tx, "DELETE"+which, p.lane, p.topic, p.key, from, to)
	return moved, err
}
