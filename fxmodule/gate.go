package fxmodule

import (
	"github.com/redis/go-redis/v9"
	"go.uber.org/fx"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/redisidem"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/ratelimit/redislimit"
)

// IdempotencyOptions tunes [Idempotency]; nil and zero mean the defaults of the
// parts.
type IdempotencyOptions struct {
	Keeper *idempotency.Options
	Store  *redisidem.Options
}

// Idempotency provides *idempotency.Keeper and idempotency.Store from a
// redis.UniversalClient. hashKey and the policy on unknown outcomes are as for
// [idempotency.New].
func Idempotency(hashKey []byte, onUnknown idempotency.Policy, opts *IdempotencyOptions) fx.Option {
	var o IdempotencyOptions
	if opts != nil {
		o = *opts
	}
	return fx.Module("firstcome.idempotency", fx.Provide(
		func(client redis.UniversalClient) (idempotency.Store, error) { return redisidem.New(client, o.Store) },
		func(store idempotency.Store) (*idempotency.Keeper, error) {
			return idempotency.New(store, hashKey, onUnknown, o.Keeper)
		},
	))
}

// RateLimit provides ratelimit.Limiter from a redis.UniversalClient.
func RateLimit(opts *redislimit.Options) fx.Option {
	return fx.Module("firstcome.ratelimit", fx.Provide(
		func(client redis.UniversalClient) (ratelimit.Limiter, error) { return redislimit.New(client, opts) },
	))
}
