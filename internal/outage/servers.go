package outage

import (
	"slices"
	"strconv"
	"strings"
)

// ofSQLState knows PostgreSQL's codes (its documentation, appendix A). 57014, a
// statement that was cancelled or ran out of statement_timeout, is none of them:
// it tells of the statement.
func ofSQLState(code string) Kind {
	switch code {
	case "40001", "40P01", "55P03": // serialization failure, deadlock, lock not available
		return Contention
	case "57P01", "57P02", "57P03", "57P05": // shut down, crashed, starting up, cut off as idle
		return Unavailable
	case "25006": // read only: a standby, or a primary that was demoted
		return Unavailable
	}
	if code == "08P01" { // a protocol violation, as of a statement with too few arguments
		return None
	}
	if strings.HasPrefix(code, "08") || strings.HasPrefix(code, "53") { // connection; disk, memory or connections used up
		return Unavailable
	}
	return None
}

// ofSQLite knows the primary result codes; what stands above their 8 bits gives
// details. The driver's texts name the code, which tells them from the errors of
// others that have a Code.
func ofSQLite(text string, code int) Kind {
	if !strings.Contains(text, "("+strconv.Itoa(code)+")") {
		return None
	}
	switch code & 0xff {
	case 5, 6: // busy, locked
		return Contention
	case 10, 13, 14: // I/O error, disk full, can't open
		return Unavailable
	}
	return None
}

// redisWords begin the answers of a server that takes no work now.
var redisWords = []string{
	"LOADING", "READONLY", "OOM", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "TRYAGAIN", "BUSY", "UNKILLABLE",
}

// ofRedis reads a server's answer. Before Redis 7 a script passes on what it met
// inside of a longer text.
func ofRedis(text string) Kind {
	word, _, _ := strings.Cut(text, " ")
	if slices.Contains(redisWords, word) || strings.HasPrefix(text, "ERR max number of clients") {
		return Unavailable
	}
	if _, inner, ok := strings.Cut(text, ": -"); ok && strings.HasPrefix(text, "ERR Error running script") {
		return ofRedis(inner)
	}
	return None
}

// clientWords are what clients say themselves of a connection that is not to be
// had or has ended, in errors without a type.
var clientWords = []string{
	"invalid connection", // go-sql-driver/mysql
	"conn closed",        // pgx, in a transaction whose server is gone: at COMMIT
	"redis: connection pool timeout", "redis: connection pool exhausted", "redis: cluster has no nodes",
	"redis: all sentinels specified in configuration are unreachable",
	"kafka: client has run out of available brokers to talk to", "kafka: broker not connected", // sarama
}

// ofText knows the errors that have nothing but a text: those of
// go-sql-driver/mysql, which begin with the server's number, those of
// mattn/go-sqlite3, and the clients' own words for a connection that is not to
// be had.
func ofText(err error) Kind {
	switch err.(type) { //nolint:errorlint // a wrapper's text is not its own
	case interface{ Unwrap() error }, interface{ Unwrap() []error }:
		return None
	}
	text := err.Error()
	if slices.Contains(clientWords, text) {
		return Unavailable
	}
	if strings.HasPrefix(text, "database is locked") || strings.HasPrefix(text, "database table is locked") {
		return Contention
	}
	if rest, ok := strings.CutPrefix(text, "Error "); ok && len(rest) > 4 && (rest[4] == ' ' || rest[4] == ':') {
		return ofMySQL(rest[:4])
	}
	return None
}

// ofMySQL knows MySQL's and MariaDB's numbers. 1317 and 3024, an interrupted
// statement, tell of the statement.
func ofMySQL(number string) Kind {
	switch number {
	case "1213", "1205", "1020", "3572": // deadlock, lock wait timeout, the row has changed since the snapshot, NOWAIT
		return Contention
	case "1040", "1203", "1226", "1053", "1077", "1079", "1927", // too many connections, shutting down, connection killed
		"1158", "1159", "1160", "1161", // network
		"1021", "1037", "1041", // disk full, out of memory
		"1047", "1129", "3032", // a node of Galera that is apart, this host is blocked, offline mode
		"1290", "1792", "1836": // read only
		return Unavailable
	}
	return None
}
