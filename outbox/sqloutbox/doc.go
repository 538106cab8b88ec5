// Package sqloutbox keeps the outbox in a SQL database: PostgreSQL, MariaDB or
// MySQL, SQLite.
//
//	store, err := sqloutbox.New(db, "postgres", nil)
//	…
//	err = store.Add(ctx, tx, outbox.Message{ID: "r-1/placed", Topic: "orders", Key: "r-1", Payload: body})
//
// [Store.Add] works on the caller's transaction, through the two methods of
// [Executor]; [Store] is also what an outbox.Relay reads from, and what people
// look after parked messages with ([Store.Parked], [Store.Requeue], [Store.Drop]).
//
// # Schema
//
// Run the files of [Migrations] with goose or by hand: four tables named
// firstcome_outbox…. With goose, give them a version table of their own:
//
//	files, err := sqloutbox.Migrations("postgres")
//	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName("firstcome_outbox_version"))
//
// # Limits
//
//   - PostgreSQL 12 or newer, MariaDB 10.6, MySQL 8.0.13, SQLite 3.42. The tests run
//     on PostgreSQL 15, MariaDB 10.11 and SQLite; MySQL is written for and not
//     tested.
//   - Writers and relays speak to the one node that takes writes. Nothing needs
//     more than a transaction: a pooler in transaction mode is fine.
//   - SQLite: open it with _pragma=journal_mode(WAL) and _pragma=busy_timeout(5000);
//     it has one writer at a time, and the relay is one of them.
//   - PostgreSQL frees rows by vacuum, which a long transaction anywhere in the
//     cluster holds up: the relay reads on from where it was and does not slow
//     down, the table grows. The migration sets autovacuum to a few thousand rows.
//   - A requeue moves a key's messages in one transaction, however many wait.
package sqloutbox
