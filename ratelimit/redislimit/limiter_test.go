package redislimit_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/ratelimit/limittest"
	"github.com/firstcome/firstcome/ratelimit/redislimit"
)

func newLimiter(t testing.TB, client redis.UniversalClient, opts *redislimit.Options) *redislimit.Limiter {
	t.Helper()
	limiter, err := redislimit.New(client, opts)
	if err != nil {
		t.Fatal(err)
	}
	return limiter
}

func TestConformance(t *testing.T) {
	for name, sharded := range map[string]bool{"OneServer": false, "Sharded": true} {
		options := func(t testing.TB) *redislimit.Options {
			return &redislimit.Options{Prefix: testenv.Name(t), Sharded: sharded, Timeout: time.Minute}
		}
		on := func(client redis.UniversalClient) func(t *testing.T) ratelimit.Limiter {
			return func(t *testing.T) ratelimit.Limiter { return newLimiter(t, client, options(t)) }
		}
		t.Run(name, func(t *testing.T) {
			t.Run("Miniredis", func(t *testing.T) {
				limittest.Run(t, limittest.Harness{
					New:    on(testenv.Mini(t)),
					Bubble: func(t *testing.T) ratelimit.Limiter { return newLimiter(t, testenv.Bubble(t), options(t)) },
				})
			})
			t.Run("Redis", func(t *testing.T) {
				limittest.Run(t, limittest.Harness{New: on(testenv.Redis(t).Client(t))})
			})
		})
	}
}
