// Package sqldead is a [worker.LetterStore] in a SQL database: dead letters that
// can be listed, read, run again and dropped.
//
//	dead, err := sqldead.New(db, "postgres", nil)
//	w, err := worker.New(subscriber, inbox, dead, nil)
//	...
//	page, err := dead.Letters(ctx, worker.LetterQuery{})
//	err = dead.Requeue(ctx, page[0].Seq) // a worker that has the handler runs it
//
// # Promise
//
//   - An event has one letter per handler, however often it is put. While the
//     letter stands, dropped ones included, a repeat of the event from the broker
//     is not run.
//   - A requeued letter is in one worker's hand at a time. Where the inbox is on
//     the same [sql.DB], the mark, the effect of a worker.HandleTx and the removal
//     of the letter are one transaction; elsewhere the letter goes after the mark,
//     which keeps a second run from taking effect. A worker that dies leaves the
//     letter requeued, and another takes it when the lease is over
//     (worker.Options.Timeout and 30 s).
//   - Nothing is removed but by an operator, by the end of a requeued run, or,
//     for tombstones, by [Options.Retention].
//
// # Schema
//
// [Migrations] has the tables firstcome_dead_letter and firstcome_dead_handler as
// numbered goose files; nothing is created behind the caller's back. Run them
// with a version table of their own, as for sqlinbox. Times are numbers by the
// database's clock, so no time zone matters.
//
// # Limits
//
//   - A payload beyond [Options.MaxPayload], or metadata beyond 64 KiB, is cut: such
//     a letter is listed and can be dropped, not requeued. Its origin says where
//     the whole event is, as long as the broker keeps it.
//   - A letter without a handler (its envelope was at fault) can't be requeued.
//   - A requeued letter runs in its key's lane of the process that takes it, so
//     beside no other event of the key there; its place in the key's order is lost.
//   - Listing is by pages; the texts of errors are cut at 512 bytes, topics are
//     shown and compared by their first 255.
package sqldead
