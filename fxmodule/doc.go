// Package fxmodule wires firstcome into an Uber Fx application. Each module is
// thin: it builds one part from what the application provides, and runs its
// loop, where it has one, between start and stop. Everything works without Fx
// too; this is the only package of the library that imports it.
//
//	app := fx.New(
//		fx.Provide(newRedis, newDatabase, newPublisher), // yours: redis.UniversalClient, Database, message.Publisher
//		fxmodule.Ledger(nil),
//		fxmodule.Stock(redisstock.JournalRelayed(0), nil),
//		fx.Supply(journal.These("ticket")),
//		fxmodule.Journal("stock-events", nil),
//		fxmodule.Idempotency(hashKey, idempotency.Rerun, nil),
//		fxmodule.RateLimit(nil),
//		fxmodule.Outbox(nil),
//		fxmodule.Relay([]string{"orders"}, nil),
//		fx.Invoke(serve), // takes *idempotency.Keeper, ratelimit.Limiter, stock.Store, ...
//	)
//
// A module provides both the concrete type and the interface of its part.
// What the application provides stays the application's to close: it is
// started before and stopped after the loops, as Fx orders hooks.
//
// # Limits
//
// A loop that ends by itself with an error shuts the application down. Stopping
// waits for the loops as long as fx.StopTimeout allows (15 s by default).
// The order of HTTP middleware is the application's to write down; it is never
// an Fx value group, whose order is random.
package fxmodule
