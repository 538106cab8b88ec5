package sqldead

import (
	"embed"
	"fmt"
	"io/fs"

	"github.com/firstcome/firstcome/internal/sqldialect"
)

//go:embed migrations
var migrations embed.FS

// Migrations returns the numbered migration files of a dialect (postgres, mysql,
// sqlite), with goose's annotations.
func Migrations(dialect string) (fs.FS, error) {
	d, err := sqldialect.Parse(dialect)
	if err != nil {
		return nil, fmt.Errorf("sqldead: %w", err)
	}
	return fs.Sub(migrations, "migrations/"+d.String())
}
