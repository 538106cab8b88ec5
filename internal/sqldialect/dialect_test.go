package sqldialect_test

import (
	"testing"

	"github.com/firstcome/firstcome/internal/sqldialect"
)

func TestPlaceholdersAreNumberedForPostgresAlone(t *testing.T) {
	const query = "SELECT a FROM b WHERE c = ? AND d IN (?,?)"
	for dialect, want := range map[sqldialect.Dialect]string{
		sqldialect.Postgres: "SELECT a FROM b WHERE c = $1 AND d IN ($2,$3)",
		sqldialect.MySQL:    query,
		sqldialect.SQLite:   query,
	} {
		if got := dialect.Rebind(query); got != want {
			t.Errorf("%v: %s", dialect, got)
		}
	}
	if got := sqldialect.Placeholders(3); got != "?,?,?" {
		t.Errorf("got %q", got)
	}
	if got := sqldialect.Placeholders(0); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestADialectsNameReadsBackAndOthersAreRefused(t *testing.T) {
	for _, d := range []sqldialect.Dialect{sqldialect.Postgres, sqldialect.MySQL, sqldialect.SQLite} {
		if got, err := sqldialect.Parse(d.String()); err != nil || got != d || !d.Valid() {
			t.Errorf("%v reads back as %v, %v", d, got, err)
		}
	}
	if d, err := sqldialect.Parse("oracle"); err == nil || d.Valid() {
		t.Errorf("got %v, %v", d, err)
	}
}
