package sqloutbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/outbox"
)

// columns of a row as [Store.scanRow] reads them, from the queue named q. Held
// is asked for in the same snapshot as the row itself.
func (s *Store) columns() string {
	return `q.lane, q.seq, q.format, q.topic, q.msg_key, q.id, q.headers, q.payload, ` + s.now + ` - q.written_at AS age,
	EXISTS (SELECT 1 FROM firstcome_outbox_parked p
		WHERE p.lane = q.lane AND p.topic = q.topic AND p.msg_key = q.msg_key AND p.seq < q.seq) AS held`
}

// Read implements [outbox.Store]: all windows in one statement, then the lanes'
// rewinds. The order of the two matters, see [outbox.Page].
func (s *Store) Read(ctx context.Context, req outbox.ReadRequest) ([]outbox.Page, error) {
	pages := make([]outbox.Page, len(req.Windows))
	for i, w := range req.Windows {
		pages[i].Lane = w.Lane
	}
	if len(pages) == 0 {
		return pages, nil
	}
	err := s.inTx(ctx, true, func(tx *sql.Tx) error {
		if err := s.readRows(ctx, tx, req, pages); err != nil {
			return fmt.Errorf("rows: %w", err)
		}
		if err := s.readRewinds(ctx, tx, pages); err != nil {
			return fmt.Errorf("lanes: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sqloutbox: read: %w", err)
	}
	return pages, nil
}

// readRows fills the pages and says where more may follow.
func (s *Store) readRows(ctx context.Context, tx *sql.Tx, req outbox.ReadRequest, pages []outbox.Page) error {
	size, reached := 0, -1
	full := func() bool { return size >= req.MaxBytes && size > 0 }
	take := func(rows *sql.Rows) error {
		if full() {
			return errEnough
		}
		n, row, err := scanRow(rows)
		if err != nil {
			return err
		}
		pages[n].Rows = append(pages[n].Rows, row)
		size += len(row.Payload)
		reached = n
		return nil
	}
	queries, err := s.readQueries(ctx, tx, req.Windows)
	if err != nil {
		return err
	}
	for _, q := range queries {
		if full() {
			break
		}
		if err := s.query(ctx, tx, take, q.text, q.args...); err != nil {
			return err
		}
	}
	for i := range pages {
		pages[i].More = len(pages[i].Rows) >= req.Windows[i].Limit || full() && i >= reached
	}
	return nil
}

// query is a statement with its arguments.
type query struct {
	text string
	args []any
}

// readQueries are a probe of the index per window, whatever the table's size:
// for a server in one statement; for SQLite, which has no trip to save and is
// slow to plan long ones, in one each.
func (s *Store) readQueries(ctx context.Context, tx *sql.Tx, windows []outbox.Window) ([]query, error) {
	if s.dialect == sqldialect.Postgres {
		q, err := s.readLateral(windows)
		return []query{q}, err
	}
	last, err := s.lastSeqs(ctx, tx)
	if err != nil {
		return nil, err
	}
	var each []query
	for i, w := range windows {
		if w.After < last[w.Lane%outbox.Lanes] {
			each = append(each, query{"SELECT ? AS n, " + s.columns() + " FROM firstcome_outbox q " +
				"WHERE q.lane = ? AND q.seq > ? AND q.seq <= ? ORDER BY q.seq LIMIT ?", []any{i, w.Lane, w.After, w.Until, w.Limit}})
		}
	}
	if s.dialect == sqldialect.SQLite || len(each) == 0 {
		return each, nil
	}
	var all query
	for i, q := range each {
		if i > 0 {
			all.text += " UNION ALL "
		}
		all.text += "SELECT * FROM (" + q.text + fmt.Sprintf(") AS w%d", i)
		all.args = append(all.args, q.args...)
	}
	all.text += " ORDER BY n, seq"
	return []query{all}, nil
}

// lastSeqs is the last seq of each lane, 0 without rows.
func (s *Store) lastSeqs(ctx context.Context, tx *sql.Tx) ([outbox.Lanes]int64, error) {
	var last [outbox.Lanes]int64
	err := s.query(ctx, tx, func(rows *sql.Rows) error {
		var (
			lane int
			seq  int64
		)
		err := rows.Scan(&lane, &seq)
		last[lane%outbox.Lanes] = seq
		return err
	}, `SELECT l.lane, coalesce((SELECT q.seq FROM firstcome_outbox q WHERE q.lane = l.lane ORDER BY q.seq DESC LIMIT 1), 0)
		FROM firstcome_outbox_lane l`)
	return last, err
}

// readLateral passes the windows as one JSON text: one statement to prepare,
// whatever their number, and no driver's array type.
func (s *Store) readLateral(windows []outbox.Window) (query, error) {
	type window struct {
		N     int   `json:"n"`
		Lane  int   `json:"lane"`
		After int64 `json:"above"`
		Until int64 `json:"upto"`
		Limit int   `json:"most"`
	}
	list := make([]window, len(windows))
	for i, w := range windows {
		list[i] = window{N: i, Lane: w.Lane, After: w.After, Until: w.Until, Limit: w.Limit}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return query{}, err
	}
	return query{`SELECT w.n, o.* FROM jsonb_to_recordset(CAST(CAST(? AS text) AS jsonb)) AS w(n int, lane smallint, above bigint, upto bigint, most int)
		CROSS JOIN LATERAL (SELECT ` + s.columns() + ` FROM firstcome_outbox q
			WHERE q.lane = w.lane AND q.seq > w.above AND q.seq <= w.upto ORDER BY q.seq LIMIT w.most) o
		ORDER BY w.n, o.seq`, []any{string(text)}}, nil
}

func scanRow(rows *sql.Rows) (int, outbox.Row, error) {
	var (
		n       int
		r       outbox.Row
		headers string
		ms      int64
	)
	err := rows.Scan(&n, &r.Lane, &r.Seq, &r.Format, &r.Topic, &r.Key, &r.ID, &headers, &r.Payload, &ms, &r.Held)
	if err != nil {
		return 0, r, err
	}
	r.Age = age(ms)
	// Headers that do not decode are a row of another format: the relay refuses
	// that row alone, rather than the page failing for ever.
	if r.Headers, err = decodeHeaders(headers); err != nil {
		r.Format = -1
	}
	return n, r, nil
}

func (s *Store) readRewinds(ctx context.Context, tx *sql.Tx, pages []outbox.Page) error {
	var rewinds [outbox.Lanes]int64
	err := s.query(ctx, tx, func(rows *sql.Rows) error {
		var (
			lane int
			n    int64
		)
		if err := rows.Scan(&lane, &n); err != nil {
			return err
		}
		rewinds[lane%outbox.Lanes] = n
		return nil
	}, "SELECT lane, rewinds FROM firstcome_outbox_lane")
	for i := range pages {
		pages[i].Rewinds = rewinds[pages[i].Lane%outbox.Lanes]
	}
	return err
}
