package sqlinbox

import "github.com/firstcome/firstcome/internal/sqldialect"

// statements are the texts of one dialect. The database's clock decides.
type statements struct {
	seen, mark, count string
	clean             string // arguments: age in microseconds, number of rows
}

func statementsFor(d sqldialect.Dialect) statements {
	s := statements{
		seen:  `SELECT 1 FROM firstcome_inbox WHERE handler = ? AND event_id = ?`,
		count: `SELECT COUNT(*) FROM firstcome_inbox WHERE handler = ?`,
	}
	switch d {
	case sqldialect.MySQL:
		// IGNORE, since its count does not depend on the driver's setting for
		// rows found or changed. Lengths are checked before.
		s.mark = `INSERT IGNORE INTO firstcome_inbox (handler, event_id, done_at)
			VALUES (?, ?, CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED))`
		s.clean = `DELETE FROM firstcome_inbox
			WHERE done_at < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - ? ORDER BY done_at LIMIT ?`
	case sqldialect.SQLite:
		const now = `CAST(unixepoch('subsec') * 1000000 AS INTEGER)`
		s.mark = `INSERT INTO firstcome_inbox (handler, event_id, done_at)
			VALUES (?, ?, ` + now + `) ON CONFLICT (handler, event_id) DO NOTHING`
		s.clean = `DELETE FROM firstcome_inbox WHERE (handler, event_id) IN (
			SELECT handler, event_id FROM firstcome_inbox WHERE done_at < ` + now + ` - ? ORDER BY done_at LIMIT ?)`
	default:
		const now = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`
		s.mark = `INSERT INTO firstcome_inbox (handler, event_id, done_at)
			VALUES (?, ?, ` + now + `) ON CONFLICT (handler, event_id) DO NOTHING`
		// Two cleaners take different rows.
		s.clean = `DELETE FROM firstcome_inbox WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM firstcome_inbox WHERE done_at < ` + now + ` - ?::bigint
			ORDER BY done_at LIMIT ? FOR UPDATE SKIP LOCKED))`
	}
	s.seen, s.mark, s.count, s.clean = d.Rebind(s.seen), d.Rebind(s.mark), d.Rebind(s.count), d.Rebind(s.clean)
	return s
}
