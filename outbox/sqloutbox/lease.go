package sqloutbox

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/outbox"
)

// forgetAfter is when a relay that left no word is struck off the list.
const forgetAfter = time.Hour

// Lease implements [outbox.Store]. Each statement commits by itself, so that a
// process that freezes between two of them holds no lock over the others.
func (s *Store) Lease(ctx context.Context, req outbox.LeaseRequest) (outbox.Leases, error) {
	var none outbox.Leases
	ttl := req.TTL.Milliseconds()
	if err := s.appear(ctx, req.Relay, ttl); err != nil {
		return none, fmt.Errorf("sqloutbox: lease: appear: %w", err)
	}
	if err := s.release(ctx, req.Relay, req.Release); err != nil {
		return none, fmt.Errorf("sqloutbox: lease: release: %w", err)
	}
	if _, err := s.exec(ctx, s.db, "UPDATE firstcome_outbox_lane SET until = "+s.now+" + ? WHERE owner = ?",
		ttl, req.Relay); err != nil {
		return none, fmt.Errorf("sqloutbox: lease: renew: %w", err)
	}
	relays, owned, err := s.census(ctx, req.Relay)
	if err != nil {
		return none, fmt.Errorf("sqloutbox: lease: count: %w", err)
	}
	if want := outbox.Share(relays) - owned; want > 0 {
		if err := s.take(ctx, req.Relay, ttl, want); err != nil {
			return none, fmt.Errorf("sqloutbox: lease: take: %w", err)
		}
	}
	lanes, err := s.owned(ctx, req.Relay)
	if err != nil {
		return none, fmt.Errorf("sqloutbox: lease: list: %w", err)
	}
	return outbox.Leases{Lanes: lanes, Relays: relays}, nil
}

// Leave implements [outbox.Store].
func (s *Store) Leave(ctx context.Context, relay string, keep []int) error {
	query := "UPDATE firstcome_outbox_lane SET owner = '', until = 0 WHERE owner = ?"
	if len(keep) > 0 {
		query += " AND lane NOT IN (" + sqldialect.Placeholders(len(keep)) + ")"
	}
	if _, err := s.exec(ctx, s.db, query, anySlice([]any{relay}, keep)...); err != nil {
		return fmt.Errorf("sqloutbox: leave: %w", err)
	}
	if _, err := s.exec(ctx, s.db, "DELETE FROM firstcome_outbox_relay WHERE relay = ?", relay); err != nil {
		return fmt.Errorf("sqloutbox: leave: %w", err)
	}
	return nil
}

func (s *Store) appear(ctx context.Context, relay string, ttl int64) error {
	query := "INSERT INTO firstcome_outbox_relay (relay, until) VALUES (?, " + s.now + " + ?) "
	if s.dialect == sqldialect.MySQL {
		query += "ON DUPLICATE KEY UPDATE until = VALUES(until)"
	} else {
		query += "ON CONFLICT (relay) DO UPDATE SET until = excluded.until"
	}
	_, err := s.exec(ctx, s.db, query, relay, ttl)
	return err
}

func (s *Store) release(ctx context.Context, relay string, lanes []int) error {
	if len(lanes) == 0 {
		return nil
	}
	_, err := s.exec(ctx, s.db, "UPDATE firstcome_outbox_lane SET owner = '', until = 0 WHERE owner = ? AND lane IN ("+
		sqldialect.Placeholders(len(lanes))+")", anySlice([]any{relay}, lanes)...)
	return err
}

// census counts the living relays and the lanes of this one.
func (s *Store) census(ctx context.Context, relay string) (relays, owned int, err error) {
	err = s.query(ctx, s.db, func(rows *sql.Rows) error { return rows.Scan(&relays, &owned) },
		"SELECT (SELECT count(*) FROM firstcome_outbox_relay WHERE until > "+s.now+"), "+
			"(SELECT count(*) FROM firstcome_outbox_lane WHERE owner = ?)", relay)
	return relays, owned, err
}

// take makes up to want free lanes this relay's, each by a conditional update
// that raises its epoch.
func (s *Store) take(ctx context.Context, relay string, ttl int64, want int) error {
	if _, err := s.exec(ctx, s.db, "DELETE FROM firstcome_outbox_relay WHERE until < "+s.now+" - ?", forgetAfter.Milliseconds()); err != nil {
		return err
	}
	free := "(owner = '' OR until <= " + s.now + ")"
	take := "UPDATE firstcome_outbox_lane SET owner = ?, epoch = epoch + 1, until = " + s.now + " + ? WHERE " + free + " AND lane IN ("
	if s.dialect == sqldialect.Postgres {
		// Skips a lane whose row a frozen transaction has locked, instead of
		// waiting for it with all the others in hand.
		_, err := s.exec(ctx, s.db, "WITH free AS MATERIALIZED (SELECT lane FROM firstcome_outbox_lane WHERE "+free+
			" ORDER BY lane LIMIT ? FOR UPDATE SKIP LOCKED) "+take+"SELECT lane FROM free)", want, relay, ttl)
		return err
	}
	var lanes []int
	err := s.query(ctx, s.db, func(rows *sql.Rows) error {
		var lane int
		err := rows.Scan(&lane)
		lanes = append(lanes, lane)
		return err
	}, "SELECT lane FROM firstcome_outbox_lane WHERE "+free+" ORDER BY lane LIMIT ?", want)
	if err != nil || len(lanes) == 0 {
		return err
	}
	_, err = s.exec(ctx, s.db, take+sqldialect.Placeholders(len(lanes))+")", anySlice([]any{relay, ttl}, lanes)...)
	return err
}

func (s *Store) owned(ctx context.Context, relay string) ([]outbox.Lease, error) {
	var lanes []outbox.Lease
	err := s.query(ctx, s.db, func(rows *sql.Rows) error {
		var l outbox.Lease
		err := rows.Scan(&l.Lane, &l.Epoch, &l.Rewinds)
		lanes = append(lanes, l)
		return err
	}, "SELECT lane, epoch, rewinds FROM firstcome_outbox_lane WHERE owner = ? ORDER BY lane", relay)
	return lanes, err
}
