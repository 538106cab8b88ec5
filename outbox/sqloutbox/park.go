package sqloutbox

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/outbox"
)

const (
	stored = "lane, seq, format, topic, msg_key, id, headers, payload, written_at"

	// behindParked holds for rows of the queue q that an earlier parked message
	// of their key keeps waiting.
	behindParked = `EXISTS (SELECT 1 FROM firstcome_outbox_parked p
		WHERE p.lane = q.lane AND p.topic = q.topic AND p.msg_key = q.msg_key AND p.seq < q.seq)`
)

// Park implements [outbox.Store]. The lane's row is locked first, with the fence
// and the rewinds in its condition: so an operator's hand on the lane comes
// wholly before (then nothing happens here) or wholly after.
func (s *Store) Park(ctx context.Context, relay string, p outbox.Parking) (int, error) {
	if len(p.Seqs) == 0 {
		return 0, nil
	}
	moved := int64(0)
	err := s.inTx(ctx, false, func(tx *sql.Tx) error {
		n, err := s.exec(ctx, tx, "UPDATE firstcome_outbox_lane SET moves = moves + 1 WHERE lane = ? AND owner = ? AND epoch = ? AND rewinds = ?",
			p.Lane, relay, p.Epoch, p.Rewinds)
		if err != nil {
			return err
		}
		if n == 0 {
			return outbox.ErrFenced
		}
		moved, err = s.moveOut(ctx, tx, p)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sqloutbox: park: %w", err)
	}
	return int(moved), nil
}

func (s *Store) moveOut(ctx context.Context, tx *sql.Tx, p outbox.Parking) (int64, error) {
	which := "q.lane = ? AND q.seq IN (" + sqldialect.Placeholders(len(p.Seqs)) + ")"
	if p.Held {
		which += " AND " + behindParked
	}
	args := anySlice([]any{p.Held, p.Attempts, clip(p.Reason, 1000), p.Lane}, p.Seqs)
	moved, err := s.exec(ctx, tx, "INSERT INTO firstcome_outbox_parked ("+stored+", held, attempts, reason, parked_at) SELECT "+
		stored+", "+s.typed("boolean")+", "+s.typed("integer")+", "+s.typed("text")+", "+s.now+" FROM firstcome_outbox q WHERE "+which, args...)
	if err != nil || moved == 0 {
		return 0, err
	}
	gone, err := s.exec(ctx, tx, "DELETE FROM firstcome_outbox WHERE lane = ? AND seq IN ("+sqldialect.Placeholders(len(p.Seqs))+
		") AND seq IN (SELECT p.seq FROM firstcome_outbox_parked p WHERE p.lane = ?)", append(anySlice([]any{p.Lane}, p.Seqs), p.Lane)...)
	if err == nil && gone != moved {
		err = fmt.Errorf("%d rows copied, %d deleted", moved, gone) // rolls back
	}
	return moved, err
}

// typed is a placeholder whose type PostgreSQL cannot infer in a select list.
func (s *Store) typed(pgType string) string {
	if s.dialect == sqldialect.Postgres {
		return "CAST(? AS " + pgType + ")"
	}
	return "?"
}

// clip makes an error's text fit for a column: valid, without NUL, bounded.
func clip(text string, limit int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "?")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
