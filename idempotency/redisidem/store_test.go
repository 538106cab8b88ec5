package redisidem_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/idempotency/redisidem"
	"github.com/firstcome/firstcome/internal/testenv"
)

func newStore(t testing.TB, client redis.UniversalClient) *redisidem.Store {
	t.Helper()
	store, err := redisidem.New(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestConformance(t *testing.T) {
	on := func(client redis.UniversalClient) func(t *testing.T) idempotency.Store {
		return func(t *testing.T) idempotency.Store { return newStore(t, client) }
	}
	t.Run("Miniredis", func(t *testing.T) {
		idemtest.Run(t, idemtest.Harness{
			New:    on(testenv.Mini(t)),
			Bubble: func(t *testing.T) idempotency.Store { return newStore(t, testenv.Bubble(t)) },
		})
	})
	t.Run("Redis", func(t *testing.T) {
		idemtest.Run(t, idemtest.Harness{New: on(testenv.Redis(t).Client(t))})
	})
}
