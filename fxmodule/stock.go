package fxmodule

import (
	"github.com/redis/go-redis/v9"
	"go.uber.org/fx"

	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/sqlledger"
)

// Ledger provides *sqlledger.Ledger and stock.Ledger from a [Database].
func Ledger(opts *sqlledger.Options) fx.Option {
	return fx.Module("firstcome.ledger", fx.Provide(
		func(db Database) (*sqlledger.Ledger, stock.Ledger, error) {
			l, err := sqlledger.New(db.DB, db.Dialect, opts)
			return l, l, err
		},
	))
}

type stockParams struct {
	fx.In

	Client redis.UniversalClient
	Ledger stock.Ledger `optional:"true"`
}

// Stock provides *redisstock.Store, stock.Store and stock.JournalReader from a
// redis.UniversalClient, with the container's stock.Ledger if there is one,
// and runs the store's loop. With a relayed journal, add [Journal] here or in
// another process.
func Stock(journal redisstock.Journal, opts *redisstock.Options) fx.Option {
	return fx.Module("firstcome.stock",
		fx.Provide(func(p stockParams) (*redisstock.Store, stock.Store, stock.JournalReader, error) {
			s, err := redisstock.New(p.Client, p.Ledger, journal, opts)
			return s, s, s, err
		}),
		fx.Invoke(func(lc fx.Lifecycle, sd fx.Shutdowner, s *redisstock.Store) {
			Loop(lc, sd, "stock", s.Run)
		}),
	)
}
