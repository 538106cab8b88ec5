package sqloutbox

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/outbox"
)

// Stats implements [outbox.Store]: one statement, so one snapshot. It counts the
// rows of the queue one by one: about a second for ten million on PostgreSQL.
func (s *Store) Stats(ctx context.Context) (outbox.Stats, error) {
	var (
		st     outbox.Stats
		oldest int64
	)
	err := s.query(ctx, s.db, func(rows *sql.Rows) error {
		return rows.Scan(&st.Pending, &oldest, &st.Parked, &st.Held, &st.Relayed, &st.Dropped, &st.Owned, &st.Relays)
	}, `SELECT q.n, q.oldest, p.parked, p.held, l.relayed, l.dropped, l.owned, r.n FROM
		(SELECT count(*) AS n, coalesce(`+s.now+` - min(written_at), 0) AS oldest FROM firstcome_outbox) q,
		(SELECT count(CASE WHEN NOT held THEN 1 END) AS parked, count(CASE WHEN held THEN 1 END) AS held FROM firstcome_outbox_parked) p,
		(SELECT `+s.sum("relayed")+` AS relayed, `+s.sum("dropped")+` AS dropped,
			count(CASE WHEN owner <> '' AND until > `+s.now+` THEN 1 END) AS owned FROM firstcome_outbox_lane) l,
		(SELECT count(*) AS n FROM firstcome_outbox_relay WHERE until > `+s.now+`) r`)
	if err != nil {
		return outbox.Stats{}, fmt.Errorf("sqloutbox: stats: %w", err)
	}
	st.Oldest = age(oldest)
	return st, nil
}

// sum of a column as a whole number: PostgreSQL and MySQL make it a decimal.
func (s *Store) sum(column string) string {
	whole := "BIGINT"
	if s.dialect == sqldialect.MySQL {
		whole = "SIGNED"
	}
	return "CAST(coalesce(sum(" + column + "), 0) AS " + whole + ")"
}
