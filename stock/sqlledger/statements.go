package sqlledger

import (
	"context"
	"strings"

	"github.com/firstcome/firstcome/internal/sqldialect"
)

// statements is the SQL of one dialect. Every conditional UPDATE changes a
// column of the rows that it matches, since MySQL reports changed rows.
type statements struct {
	// place inserts a row if the pool is in the order's epoch and not retired,
	// which it locks until the transaction ends (PostgreSQL: by one of the
	// pool's gates). It changes nothing where the ID stands already, nor where
	// the epoch is another or is being ended.
	// Arguments: id, sku, buyer, quantity, expires, epoch, stripe, asked,
	// released, released units, sku, epoch.
	place string
	// readRow and lockRow return one reservation; the latter waits for its
	// open change and holds off others. Argument: id.
	readRow, lockRow string
	// placedRow is readRow for a row on which place has stumbled: its newest
	// version, also where the transaction has an old snapshot. Argument: id.
	placedRow string
	// lockRows is lockRow for the IDs in @, in their order.
	lockRows string
	// sellAtOnce sells a held row of a pool without items, of which nothing was
	// released, in one round trip: it moves the row and counts its units, or
	// changes nothing. SQLite has none. It returns nothing, since on PostgreSQL
	// a result costs half as much again. Argument: id.
	//
	// It waits for the row's own stripe, and keeps it locked even where that has
	// no room. (To look for one that nobody has locked takes a quarter more of the
	// server's time than the few waits do.)
	sellAtOnce string
	// soldAtOnce is how many rows that changes where it sells.
	soldAtOnce int64
	// setState moves one row. Arguments: new state, id, old state.
	setState string
	// sellRow moves a held row, of which no more is released from then on.
	// Arguments: released, released units, id.
	sellRow string
	// extend moves the end of a held row. Arguments: expires, id, expires.
	extend string
	// setStates is setState for the IDs in @. Arguments: new state, ids, old state.
	setStates string
	// move adds to a stripe's counter, if it stays within bounds.
	// Arguments: delta, sku, item, stripe, delta, delta.
	move string
	// savepoint, rollbackTo and release stand around a move that may wait in
	// vain, where that would keep the lock waited for (PostgreSQL locks the new
	// version of a row before it sees that the row no longer qualifies).
	savepoint, rollbackTo, release string
	// readStripes returns an item's stripes in order. Arguments: sku, item.
	readStripes string
	// lockStripes returns those in @, in order, and holds off others. It names
	// them one by one since InnoDB locks all that it looks at.
	// Arguments: sku, item, numbers.
	lockStripes string
	// setTotal changes the total of a locked stripe, unless more is sold.
	// Arguments: total, sku, item, stripe, total.
	setTotal string
	// lockTerms returns the version and holds off others that would change the
	// terms. Argument: sku.
	lockTerms string
	// updateTerms writes them. Arguments: new version, terms, sku, old version.
	updateTerms string
	// void inserts a row that keeps an order from being placed, one for each
	// in @, and skips those that stand. Arguments per row: id, sku.
	void string
	// setWait bounds the waits of the transaction, where that is a statement
	// of its own. Argument: milliseconds as text and unit.
	setWait string

	listPools                                          string
	readEpoch, readPool                                string // sku
	insertPool, insertTerms, insertMark, insertStripes string // rows in the @ of the last
	saveMark                                           string // seq, sku, epoch, seq
	endMark                                            string // epoch, sku, epoch, epoch; empty where not needed
	raiseEpoch                                         string // new epoch, sku, old epoch
	raiseMark                                          string // new epoch, sku
	retire                                             string // sku
	insertGates, raiseGates, retireGates               string // sku, epoch; new epoch, sku; sku; empty where the pool's row is the gate
	someHeld                                           string // after, last, sku
	entries                                            string // after, last, sku, n
	find                                               string // ids in the @
	// totals returns rows of three kinds: "terms" with the terms as text; "sold"
	// with an item and its sum; "held" with the content of some rows, their
	// number and sum. Arguments: sku, sku, after, last, sku.
	totals string
}

// gates is over how many rows PostgreSQL spreads the lock of a pool's epoch.
// Where orders share one row's lock, each writes the list of all who have it
// (a multixact), a quarter of what an order writes. A connection has its own
// gate, so that a transaction with several orders never locks two of one pool.
const gates = `32`

// The SQL that all dialects share.
const (
	rowColumns  = `id, sku, buyer, quantity, expires_ms, epoch, stripe, state, asked, released, released_units`
	fromRow     = ` FROM firstcome_stock_reservation WHERE id = ?`
	fromRows    = ` FROM firstcome_stock_reservation WHERE id IN (@) ORDER BY id`
	someStripes = `SELECT stripe, total, sold FROM firstcome_stock_sold WHERE sku = ? AND item = ? AND stripe IN (@) ORDER BY stripe`
	lockTerms   = `SELECT version FROM firstcome_stock_terms WHERE sku = ? FOR UPDATE`
	insertRow   = ` INTO firstcome_stock_reservation (` + rowColumns + `) `
	// PostgreSQL grants a share lock although an update waits for the row, so
	// that orders without pause would keep the end of their epoch waiting. The
	// mark is read without a lock, since it changes all the time; once for the
	// statement ($11 is place's SKU), which is cheaper than beside the gate.
	notEnding = ` AND epoch > (SELECT m.ending FROM firstcome_stock_mark m WHERE m.sku = $11)`
)

// statementsFor returns the SQL of a dialect.
func statementsFor(d sqldialect.Dialect) statements {
	s := statements{
		readRow:   `SELECT ` + rowColumns + fromRow,
		placedRow: `SELECT ` + rowColumns + fromRow,
		setState: `UPDATE firstcome_stock_reservation SET state = ?
			WHERE id = ? AND state = ?`,
		setStates: `UPDATE firstcome_stock_reservation SET state = ?
			WHERE id IN (@) AND state = ?`,
		sellRow: `UPDATE firstcome_stock_reservation SET state = 'sold', released = ?, released_units = ?
			WHERE id = ? AND state = 'held'`,
		extend: `UPDATE firstcome_stock_reservation SET expires_ms = ?
			WHERE id = ? AND state = 'held' AND expires_ms < ?`,
		move: `UPDATE firstcome_stock_sold SET sold = sold + ?
			WHERE sku = ? AND item = ? AND stripe = ? AND sold + ? >= 0 AND sold + ? <= total`,
		setTotal: `UPDATE firstcome_stock_sold SET total = ?
			WHERE sku = ? AND item = ? AND stripe = ? AND sold <= ?`,
		updateTerms: `UPDATE firstcome_stock_terms SET version = ?, terms = ? WHERE sku = ? AND version = ?`,
		readStripes: `SELECT stripe, total, sold FROM firstcome_stock_sold WHERE sku = ? AND item = ? ORDER BY stripe`,
		readEpoch:   `SELECT epoch, retired FROM firstcome_stock_pool WHERE sku = ?`,
		listPools:   `SELECT sku FROM firstcome_stock_pool WHERE retired = 0 ORDER BY sku`,
		readPool: `SELECT t.version, t.terms, t.opened, p.epoch, m.seq, p.stripes, p.retired
			FROM firstcome_stock_pool p
			JOIN firstcome_stock_terms t ON t.sku = p.sku
			JOIN firstcome_stock_mark m ON m.sku = p.sku
			WHERE p.sku = ?`,
		insertTerms:   `INSERT INTO firstcome_stock_terms (sku, version, terms, opened) VALUES (?, ?, ?, ?)`,
		insertMark:    `INSERT INTO firstcome_stock_mark (sku, epoch, seq) VALUES (?, ?, 0)`,
		insertStripes: `INSERT INTO firstcome_stock_sold (sku, item, stripe, total) VALUES @`,
		saveMark:      `UPDATE firstcome_stock_mark SET seq = ? WHERE sku = ? AND epoch = ? AND seq < ?`,
		raiseEpoch:    `UPDATE firstcome_stock_pool SET epoch = ? WHERE sku = ? AND epoch = ? AND retired = 0`,
		raiseMark:     `UPDATE firstcome_stock_mark SET epoch = ?, seq = 0 WHERE sku = ?`,
		retire:        `UPDATE firstcome_stock_pool SET retired = 1 WHERE sku = ? AND retired = 0`,
		someHeld: `SELECT 1 FROM firstcome_stock_reservation
			WHERE id > ? AND id <= ? AND sku = ? AND state = 'held' LIMIT 1`,
		find: `SELECT ` + rowColumns + fromRows,
		entries: `SELECT ` + rowColumns + ` FROM firstcome_stock_reservation
			WHERE id > ? AND id <= ? AND sku = ? AND state IN ('held', 'sold') ORDER BY id LIMIT ?`,
		// Baskets of the same content are summed by the database, so that what
		// comes back is small.
		totals: `SELECT 'terms', t.terms, '', 0, 0 FROM firstcome_stock_terms t WHERE t.sku = ?
			UNION ALL
			SELECT 'sold', '', '', c.item, SUM(c.sold) FROM firstcome_stock_sold c WHERE c.sku = ? GROUP BY c.item
			UNION ALL
			SELECT 'held', r.asked, r.released, COUNT(*), SUM(r.quantity - r.released_units)
			FROM firstcome_stock_reservation r
			WHERE r.id > ? AND r.id <= ? AND r.sku = ? AND r.state = 'held' GROUP BY r.asked, r.released`,
	}
	switch d {
	case sqldialect.Postgres:
		s.postgres()
	case sqldialect.MySQL:
		s.mysql()
	case sqldialect.SQLite:
		s.sqlite()
	}
	for _, q := range s.all() {
		*q = d.Rebind(*q)
	}
	return s
}

// all lists the statements whose number of placeholders is fixed.
func (s *statements) all() []*string {
	return []*string{
		&s.place, &s.placedRow, &s.readRow, &s.lockRow, &s.sellAtOnce, &s.sellRow, &s.setState,
		&s.extend, &s.move, &s.readStripes, &s.setTotal, &s.lockTerms, &s.updateTerms, &s.setWait, &s.readEpoch, &s.readPool,
		&s.insertPool, &s.insertTerms, &s.insertMark, &s.saveMark, &s.endMark, &s.raiseEpoch, &s.raiseMark,
		&s.retire, &s.insertGates, &s.raiseGates, &s.retireGates, &s.someHeld, &s.entries, &s.totals,
	}
}

func (s *statements) postgres() {
	// The casts are for drivers and poolers that send values without types.
	s.place = `INSERT` + insertRow + `
		SELECT CAST(? AS text), CAST(? AS text), CAST(? AS text), CAST(? AS bigint), CAST(? AS bigint),
			CAST(? AS bigint), CAST(? AS bigint), 'held', CAST(? AS text), CAST(? AS text), CAST(? AS bigint)
		FROM firstcome_stock_gate WHERE sku = ? AND epoch = ? AND retired = 0
		AND gate = pg_backend_pid() % ` + gates + notEnding + `
		FOR SHARE OF firstcome_stock_gate
		ON CONFLICT (id) DO NOTHING`
	s.lockRow = `SELECT ` + rowColumns + fromRow + ` FOR UPDATE`
	s.lockRows = `SELECT ` + rowColumns + fromRows + ` FOR UPDATE`
	s.lockStripes = someStripes + ` FOR UPDATE`
	s.lockTerms = lockTerms
	s.insertGates = `INSERT INTO firstcome_stock_gate (sku, gate, epoch)
		SELECT CAST(? AS text), g, CAST(? AS bigint) FROM generate_series(0, ` + gates + ` - 1) g`
	s.raiseGates = `UPDATE firstcome_stock_gate SET epoch = ? WHERE sku = ?`
	s.retireGates = `UPDATE firstcome_stock_gate SET retired = 1 WHERE sku = ?`
	s.endMark = `UPDATE firstcome_stock_mark SET ending = ? WHERE sku = ? AND epoch = ? AND ending < ?`
	// The row is locked first, as everywhere, and moved last.
	s.sellAtOnce = `WITH r AS (
			SELECT id, sku, stripe, quantity FROM firstcome_stock_reservation
			WHERE id = ? AND state = 'held' AND asked = '' AND released_units = 0 FOR UPDATE
		), counted AS (
			UPDATE firstcome_stock_sold s SET sold = s.sold + r.quantity FROM r
			WHERE s.sku = r.sku AND s.item = 0 AND s.stripe = r.stripe AND s.sold + r.quantity <= s.total
			RETURNING r.id
		)
		UPDATE firstcome_stock_reservation t SET state = 'sold' FROM counted WHERE t.id = counted.id`
	s.soldAtOnce = 1
	s.void = `INSERT` + insertRow + `VALUES @ ON CONFLICT (id) DO NOTHING`
	s.savepoint, s.rollbackTo, s.release = `SAVEPOINT firstcome_stock`, `ROLLBACK TO SAVEPOINT firstcome_stock`, `RELEASE SAVEPOINT firstcome_stock`
	s.setWait = `SELECT set_config('lock_timeout', ?, true)`
	s.insertPool = `INSERT INTO firstcome_stock_pool (sku, epoch, stripes) VALUES (?, ?, ?) ON CONFLICT (sku) DO NOTHING`
}

func (s *statements) mysql() {
	// IGNORE, not ON DUPLICATE KEY UPDATE: the latter's count of rows depends
	// on the client's flags. What else it would ignore is checked beforehand.
	s.place = `INSERT IGNORE` + insertRow + `
		SELECT ?, ?, ?, ?, ?, ?, ?, 'held', ?, ?, ?
		FROM firstcome_stock_pool WHERE sku = ? AND epoch = ? AND retired = 0
		LOCK IN SHARE MODE`
	s.placedRow = `SELECT ` + rowColumns + fromRow + ` LOCK IN SHARE MODE` // place has this lock already
	s.lockRow = `SELECT ` + rowColumns + fromRow + ` FOR UPDATE`
	s.lockRows = `SELECT ` + rowColumns + fromRows + ` FOR UPDATE`
	s.lockStripes = someStripes + ` FOR UPDATE`
	s.lockTerms = lockTerms
	s.readEpoch += ` LOCK IN SHARE MODE` // place has tried to; else an old snapshot might show it
	s.sellAtOnce = `UPDATE firstcome_stock_reservation r
		JOIN firstcome_stock_sold s ON s.sku = r.sku AND s.item = 0 AND s.stripe = r.stripe
		SET r.state = 'sold', s.sold = s.sold + r.quantity
		WHERE r.id = ? AND r.state = 'held' AND r.asked = '' AND r.released_units = 0 AND s.sold + r.quantity <= s.total`
	s.soldAtOnce = 2 // the row and its stripe
	s.void = `INSERT IGNORE` + insertRow + `VALUES @`
	s.insertPool = `INSERT IGNORE INTO firstcome_stock_pool (sku, epoch, stripes) VALUES (?, ?, ?)`
}

func (s *statements) sqlite() {
	s.place = `INSERT` + insertRow + `
		SELECT ?, ?, ?, ?, ?, ?, ?, 'held', ?, ?, ?
		FROM firstcome_stock_pool WHERE sku = ? AND epoch = ? AND retired = 0
		ON CONFLICT (id) DO NOTHING`
	// A write, though it changes nothing: it takes the database's one lock, so
	// that no later write finds that another was faster.
	s.lockRow = `UPDATE firstcome_stock_reservation SET state = state WHERE id = ? RETURNING ` + rowColumns
	s.lockRows = `UPDATE firstcome_stock_reservation SET state = state WHERE id IN (@) RETURNING ` + rowColumns
	s.lockStripes = someStripes
	s.lockTerms = `UPDATE firstcome_stock_terms SET version = version WHERE sku = ? RETURNING version`
	s.void = `INSERT` + insertRow + `VALUES @ ON CONFLICT (id) DO NOTHING`
	s.insertPool = `INSERT INTO firstcome_stock_pool (sku, epoch, stripes) VALUES (?, ?, ?) ON CONFLICT (sku) DO NOTHING`
}

// list puts a list of n elements in the place of the @ of a statement.
func (l *Ledger) list(query, element string, n int) string {
	list := strings.Repeat(element+",", n-1) + element
	return l.dialect.Rebind(strings.Replace(query, "@", list, 1))
}

// affected is [sqldialect.Affected] on an [Executor].
func affected(ctx context.Context, tx Executor, query string, args ...any) (int64, error) {
	return sqldialect.Affected(ctx, tx, query, args...)
}
