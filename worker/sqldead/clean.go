package sqldead

import (
	"context"
	"time"

	"github.com/firstcome/firstcome/internal/sqldialect"
)

// Run removes tombstones older than [Options.Retention], every
// [Options.CleanEvery], until ctx ends; it then returns nil. One process of the
// fleet is enough, and several do no harm.
func (s *Store) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.opts.CleanEvery)
	defer ticker.Stop()
	for {
		removed, err := s.Clean(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			s.opts.Logger.WarnContext(ctx, "sqldead: cleaning failed, trying again later", "err", err)
		case removed > 0:
			s.opts.Logger.DebugContext(ctx, "sqldead: cleaned", "rows", removed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Clean removes the tombstones that are older than [Options.Retention], in
// statements of [Options.CleanChunk] rows, and returns how many went. Letters
// that lie or are requeued stay, however old.
func (s *Store) Clean(ctx context.Context) (removed int64, err error) {
	old := `state = 'dropped' AND changed_at < ` + s.now + ` - ?`
	statement := `DELETE FROM firstcome_dead_letter WHERE seq IN (SELECT seq FROM firstcome_dead_letter WHERE ` + old + ` ORDER BY changed_at LIMIT ?)`
	switch s.dialect {
	case sqldialect.MySQL: // no LIMIT in a subquery there
		statement = `DELETE FROM firstcome_dead_letter WHERE ` + old + ` ORDER BY changed_at LIMIT ?`
	case sqldialect.Postgres:
		statement = `DELETE FROM firstcome_dead_letter WHERE ctid = ANY (ARRAY(SELECT ctid FROM firstcome_dead_letter WHERE ` +
			`state = 'dropped' AND changed_at < ` + s.now + ` - ?::bigint ORDER BY changed_at LIMIT ? FOR UPDATE SKIP LOCKED))`
	}
	for {
		n, err := s.exec(ctx, s.db, statement, s.opts.Retention.Microseconds(), s.opts.CleanChunk)
		if err != nil {
			return removed, wrap("remove old tombstones", err)
		}
		removed += n
		if n < int64(s.opts.CleanChunk) {
			return removed, nil
		}
	}
}
