package sqlledger

import (
	"embed"
	"fmt"
	"io/fs"

	"github.com/firstcome/firstcome/internal/sqldialect"
)

//go:embed migrations
var migrations embed.FS

// Migrations returns the numbered files that make the ledger's tables in a
// database of the dialect, in goose's format (an Up and a Down part each). The
// library never runs them. All tables begin with firstcome_stock_. The
// numbers are this package's own: give them a version table of their own.
func Migrations(dialect string) (fs.FS, error) {
	d, err := sqldialect.Parse(dialect)
	if err != nil {
		return nil, fmt.Errorf("sqlledger: %w", err)
	}
	return fs.Sub(migrations, "migrations/"+d.String())
}
