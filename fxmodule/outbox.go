package fxmodule

import (
	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/fx"

	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
)

// Outbox provides *sqloutbox.Store and outbox.Store from a [Database].
func Outbox(opts *sqloutbox.Options) fx.Option {
	return fx.Module("firstcome.outbox", fx.Provide(
		func(db Database) (*sqloutbox.Store, outbox.Store, error) {
			s, err := sqloutbox.New(db.DB, db.Dialect, opts)
			return s, s, err
		},
	))
}

// Relay provides *outbox.Relay from an outbox.Store and a message.Publisher,
// sending to the listed topics only, and runs it.
func Relay(topics []string, opts *outbox.Options) fx.Option {
	return fx.Module("firstcome.relay",
		fx.Provide(func(store outbox.Store, publisher message.Publisher) (*outbox.Relay, error) {
			return outbox.NewRelay(store, publisher, topics, opts)
		}),
		fx.Invoke(func(lc fx.Lifecycle, sd fx.Shutdowner, r *outbox.Relay) {
			Loop(lc, sd, "relay", r.Run)
		}),
	)
}
