package fxmodule

import (
	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/fx"

	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqlinbox"
)

// Inbox provides *sqlinbox.Inbox and worker.Inbox from a [Database], and runs
// its cleaning.
func Inbox(opts *sqlinbox.Options) fx.Option {
	return fx.Module("firstcome.inbox",
		fx.Provide(func(db Database) (*sqlinbox.Inbox, worker.Inbox, error) {
			i, err := sqlinbox.New(db.DB, db.Dialect, opts)
			return i, i, err
		}),
		fx.Invoke(func(lc fx.Lifecycle, sd fx.Shutdowner, i *sqlinbox.Inbox) {
			Loop(lc, sd, "inbox", i.Run)
		}),
	)
}

// Worker provides *worker.Worker from a message.Subscriber, a worker.Inbox and
// a worker.DeadLetter, and runs it. Register handlers with fx.Invoke and
// [worker.Handle] or [worker.HandleTx]: invocations come before the start.
func Worker(opts *worker.Options) fx.Option {
	return fx.Module("firstcome.worker",
		fx.Provide(func(sub message.Subscriber, inbox worker.Inbox, dead worker.DeadLetter) (*worker.Worker, error) {
			return worker.New(sub, inbox, dead, opts)
		}),
		fx.Invoke(func(lc fx.Lifecycle, sd fx.Shutdowner, w *worker.Worker) {
			Loop(lc, sd, "worker", w.Run)
		}),
	)
}
