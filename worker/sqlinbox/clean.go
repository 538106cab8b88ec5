package sqlinbox

import (
	"context"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/internal/sqldialect"
)

// Run removes rows older than [Options.Retention], every [Options.CleanEvery],
// until ctx ends; it then returns nil. One process of the fleet is enough, and
// several do no harm. With [Forever] it only waits.
func (i *Inbox) Run(ctx context.Context) error {
	ticker := time.NewTicker(i.opts.CleanEvery)
	defer ticker.Stop()
	for {
		removed, err := i.Clean(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			i.opts.Logger.WarnContext(ctx, "sqlinbox: cleaning failed, trying again later", "err", err)
		case removed > 0:
			i.opts.Logger.DebugContext(ctx, "sqlinbox: cleaned", "rows", removed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Clean removes what is older than [Options.Retention], in statements of
// [Options.CleanChunk] rows, and returns how many rows went.
func (i *Inbox) Clean(ctx context.Context) (removed int64, err error) {
	if i.opts.Retention == Forever {
		return 0, nil
	}
	for {
		n, err := sqldialect.Affected(ctx, i.db, i.sql.clean, i.opts.Retention.Microseconds(), i.opts.CleanChunk)
		if err != nil {
			return removed, fmt.Errorf("remove old events: %w", err)
		}
		removed += n
		if n < int64(i.opts.CleanChunk) {
			return removed, nil
		}
	}
}
