// Package sqlledger keeps in SQL what a pool of stock promised and sold, and
// refuses to sell more than there is. It is the ledger behind a fast
// [stock.Store]: the store answers in microseconds and may lose its last
// writes; what was sold is what this package's tables say.
//
// It runs on PostgreSQL, MySQL 8 or MariaDB (10.6 or newer), and SQLite.
//
// # Promise
//
//   - However many rows are held, and whatever the store believes, at most as
//     many units of an SKU are sold as its total is at that time: a conditional
//     update counts them, and a CHECK constraint stands behind it.
//   - A basket is sold as a whole or not at all. Where a part of an order is
//     sold, the rest is given up in the same step, and stays so.
//   - An order and the end of its hold exclude each other. [Ledger.Expire]
//     decides by writing a row under the order's own ID: either the order
//     commits and its unit is not given to another, or the order is refused as
//     too late. Never both, never neither.
//   - An order promised in an epoch that has ended can't commit: after
//     [Ledger.RaiseEpoch] returned, nothing of the old epoch is on its way. Nor
//     can one in a pool that is over, after [Ledger.Retire].
//   - An adjustment is made once, on the version that it was decided on, and
//     never takes out what is sold. Orders don't wait for it, nor it for them.
//   - Every step takes effect once per ID and may be repeated.
//
// # Limits of the promise
//
//   - One writing node. A failover of the database that loses committed
//     transactions loses them here too.
//   - Place, Extend, Sell, Cancel and Return work in your transaction. An error
//     that is one of package stock's sentinels changed nothing, and the
//     transaction may go on. After any other error roll back.
//   - A COMMIT whose reply is lost is unknown, as with any database: ask
//     [Ledger.Status], which waits for the transaction if it is still open, and
//     never cancel on it.
//   - Isolation: READ COMMITTED is enough and is the one to choose. REPEATABLE
//     READ (the default of MySQL and MariaDB) and SERIALIZABLE are correct too;
//     they report more conflicts. Conflicts are errors for which [IsRetryable]
//     is true; [Ledger.InTx] runs the transaction again.
//   - A transaction that sells several reservations uses [Ledger.SellAll]. Like
//     the sale of a basket it takes its locks in one order (pool, item, stripe),
//     so that two of them don't deadlock where there is room for both. One that
//     the database reports all the same is a conflict.
//   - A sale of one whole order of a pool without items is one statement on
//     PostgreSQL, MySQL and MariaDB. A basket or a part takes two, and one for
//     each item.
//   - A sale waits for the stripe that its order was given, one of
//     [Options.Stripes]: a transaction that sold and stays open (its process froze)
//     holds up that share of the others. Let the database end such ones, as by
//     PostgreSQL's idle_in_transaction_session_timeout.
//   - What never changes about a pool is read once by each process: its items,
//     their order, and [stock.Pool.Unpaid].
//   - [Ledger.Totals] reads every row of the pool. So does [Ledger.Retire], at most
//     twice.
//   - Nothing here needs a session: no session settings, session locks or
//     prepared statements of its own, so that a pooler in transaction mode may
//     stand between. (MySQL proper, not MariaDB: see [Options.ExpireWait].)
//   - go-sql-driver/mysql prepares each statement anew by default; with
//     interpolateParams=true in its DSN a statement is one round trip.
//
// # Smallest use
//
// Run the files of [Migrations] with your migration tool, then:
//
//	ledger, err := sqlledger.New(db, "postgres", nil)
//	store, err := redisstock.New(client, ledger, redisstock.JournalOff, nil)
//	...
//	hold, err := store.Reserve(ctx, request)
//	err = ledger.InTx(ctx, func(tx *sql.Tx) error {
//		if _, err := ledger.Place(ctx, tx, hold, request.Buyer); err != nil {
//			return err
//		}
//		return insertOrder(ctx, tx, hold) // your own table, the same transaction
//	})
//	...
//	err = ledger.InTx(ctx, func(tx *sql.Tx) error { // paid
//		if err := ledger.Sell(ctx, tx, hold.ID); err != nil {
//			return err
//		}
//		return markPaid(ctx, tx, hold.ID)
//	})
//	_, err = store.Confirm(ctx, hold.ID)
package sqlledger
