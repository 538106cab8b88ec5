package redislimit_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/internal/testenv/faultrows"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/ratelimit/redislimit"
)

// decisions is a limiter at its defaults; each call is a bucket of its own.
func decisions(t *testing.T, client redis.UniversalClient) faultrows.Call {
	limiter := newLimiter(t, client, &redislimit.Options{Prefix: testenv.Name(t)})
	return func(ctx context.Context, i int) error {
		_, err := limiter.Take(ctx, ratelimit.Take{Limit: perDay, Key: strconv.Itoa(i), Cost: 1})
		return err
	}
}

func TestOneStalledConnection_FailsNoMoreDecisionsThanPlainScripts(t *testing.T) {
	t.Parallel()
	faultrows.OneStalledConnection(t, decisions)
}

func TestStaleConnections_DecisionsAreBackWithinSeconds(t *testing.T) {
	t.Parallel()
	faultrows.StaleConnections(t, decisions)
}

func TestFrozenNode_FailsTheDecisionsOfItsOwnKeysOnly(t *testing.T) {
	t.Parallel()
	faultrows.FrozenNode(t, decisions)
}

func TestDistance_ADecisionIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	faultrows.Distance(t, decisions)
}

func TestHiccup_FailsNoDecision(t *testing.T) {
	t.Parallel()
	faultrows.Hiccup(t, decisions)
}
