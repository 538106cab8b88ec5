// Package sqlinbox is a [worker.TxInbox] in a SQL database: one row per handler
// and finished event.
//
//	inbox, err := sqlinbox.New(db, "postgres", nil)
//	w, err := worker.New(subscriber, inbox, worker.DeadLetterTo(publisher), nil)
//
// With worker.HandleTx the row is written in the handler's transaction, before
// the handler's own statements. A second transaction with the same event waits
// at that row until the first one ends: it then finds the event done, or, when
// the first rolled back, runs it. The two never both take effect.
//
// # Schema
//
// [Migrations] has the table firstcome_inbox as numbered goose files; nothing is
// created behind the caller's back. Run them with a version table of their own,
// since other packages count from 1 too:
//
//	files, _ := sqlinbox.Migrations("postgres")
//	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName("firstcome_inbox_version"))
//	_, err = p.Up(ctx)
//
// # Limits
//
// PostgreSQL, MariaDB and SQLite are tested; MySQL itself is not. The database is
// the promise's memory: rows lost with it, or removed after [Options.Retention],
// let a repeat take effect again. SQLite has one writer at a time, so handlers in
// a transaction run one by one there; set busy_timeout, lest they fail instead of
// waiting (the worker then retries, without counting an attempt).
//
// A waiting transaction holds its connection: allow the pool at least as many
// as the worker's Concurrency.
package sqlinbox
