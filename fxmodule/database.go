package fxmodule

import "database/sql"

// Database is what the SQL parts take from the container: the pool, and the
// dialect's name (postgres, mysql or sqlite).
type Database struct {
	DB      *sql.DB
	Dialect string
}
