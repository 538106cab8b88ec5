package sqloutbox

import (
	"embed"
	"fmt"
	"io/fs"

	"github.com/firstcome/firstcome/internal/sqldialect"
)

//go:embed migrations
var migrations embed.FS

// Migrations returns the numbered schema files of a dialect ("postgres", "mysql",
// "sqlite"), in the form that goose reads. Nothing here runs them: a library does
// not change a schema behind its user's back.
func Migrations(dialect string) (fs.FS, error) {
	d, err := sqldialect.Parse(dialect)
	if err != nil {
		return nil, fmt.Errorf("sqloutbox: migrations: %w", err)
	}
	return fs.Sub(migrations, "migrations/"+d.String())
}
