package sqloutbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/outbox"
)

// settleRows bounds a statement's list.
const settleRows = 5000

// owns is the fence: the lane is the relay's at the epoch at which it was read.
const owns = "EXISTS (SELECT 1 FROM firstcome_outbox_lane l WHERE l.lane = ? AND l.owner = ? AND l.epoch = ?)"

// Settle implements [outbox.Store]. The ID is compared beside the sequence:
// where a failover lost commits, the database hands out sequences again.
func (s *Store) Settle(ctx context.Context, relay string, receipts []outbox.Receipt) (int, error) {
	settled := 0
	for len(receipts) > 0 {
		chunk := receipts[:min(len(receipts), settleRows)]
		receipts = receipts[len(chunk):]
		err := s.inTx(ctx, false, func(tx *sql.Tx) error {
			n, err := s.settle(ctx, tx, relay, chunk)
			settled += n
			return err
		})
		if err != nil {
			return settled, fmt.Errorf("sqloutbox: settle: %w", err)
		}
	}
	return settled, nil
}

func (s *Store) settle(ctx context.Context, tx *sql.Tx, relay string, receipts []outbox.Receipt) (int, error) {
	if s.dialect == sqldialect.Postgres {
		return s.settleAtOnce(ctx, tx, relay, receipts)
	}
	byLane := map[outbox.Lease][]outbox.Receipt{}
	for _, r := range receipts {
		at := outbox.Lease{Lane: r.Lane, Epoch: r.Epoch}
		byLane[at] = append(byLane[at], r)
	}
	settled := 0
	for lane := range outbox.Lanes { // in their order, so that two relays never wait for each other
		for at, list := range byLane {
			if at.Lane != lane {
				continue
			}
			n, err := s.settleLane(ctx, tx, relay, at, list)
			if err != nil {
				return settled, err
			}
			settled += n
		}
	}
	return settled, nil
}

// settleAtOnce deletes and counts over all lanes in one statement.
func (s *Store) settleAtOnce(ctx context.Context, tx *sql.Tx, relay string, receipts []outbox.Receipt) (int, error) {
	type acked struct {
		Lane  int    `json:"lane"`
		Epoch int64  `json:"epoch"`
		Seq   int64  `json:"seq"`
		ID    string `json:"id"`
	}
	list := make([]acked, len(receipts))
	for i, r := range receipts {
		list[i] = acked(r)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return 0, err
	}
	var n int
	err = s.query(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(&n) }, `
		WITH acked AS MATERIALIZED (
			SELECT a.lane, a.seq, a.id
			FROM jsonb_to_recordset(CAST(CAST(? AS text) AS jsonb)) AS a(lane smallint, epoch bigint, seq bigint, id text)
			JOIN firstcome_outbox_lane l ON l.lane = a.lane AND l.epoch = a.epoch AND l.owner = ?),
		gone AS (
			DELETE FROM firstcome_outbox q USING acked a WHERE q.lane = a.lane AND q.seq = a.seq AND q.id = a.id RETURNING q.lane),
		counted AS (
			UPDATE firstcome_outbox_lane l SET relayed = l.relayed + g.n
			FROM (SELECT lane, count(*) AS n FROM gone GROUP BY lane) g WHERE l.lane = g.lane)
		SELECT count(*) FROM gone`, string(text), relay)
	return n, err
}

// settleLane takes rows whose seq and ID are both among those named: whichever
// row that is, its message was acknowledged.
func (s *Store) settleLane(ctx context.Context, tx *sql.Tx, relay string, at outbox.Lease, receipts []outbox.Receipt) (int, error) {
	seqs, ids := make([]any, len(receipts)), make([]any, len(receipts))
	for i, r := range receipts {
		seqs[i], ids[i] = r.Seq, r.ID
	}
	args := append([]any{at.Lane}, seqs...)
	args = append(args, ids...)
	args = append(args, at.Lane, relay, at.Epoch)
	list := sqldialect.Placeholders(len(receipts))
	n, err := s.exec(ctx, tx, "DELETE FROM firstcome_outbox WHERE lane = ? AND seq IN ("+list+") AND id IN ("+list+") AND "+owns, args...)
	if err != nil || n == 0 {
		return 0, err
	}
	_, err = s.exec(ctx, tx, "UPDATE firstcome_outbox_lane SET relayed = relayed + ? WHERE lane = ?", n, at.Lane)
	return int(n), err
}
