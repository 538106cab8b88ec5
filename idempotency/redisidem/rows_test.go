package redisidem_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/internal/testenv/faultrows"
)

// claims is a keeper at its defaults; each call claims a key of its own, whose
// lease outlasts the row.
func claims(t *testing.T, client redis.UniversalClient) faultrows.Call {
	keeper := newKeeper(t, client, idempotency.Rerun, idempotency.Options{})
	return func(ctx context.Context, i int) error {
		_, err := keeper.Begin(ctx, "rows", strconv.Itoa(i), keeper.Fingerprint(nil))
		return err
	}
}

func TestOneStalledConnection_FailsNoMoreClaimsThanPlainScripts(t *testing.T) {
	t.Parallel()
	faultrows.OneStalledConnection(t, claims)
}

func TestStaleConnections_ClaimsAreBackWithinSeconds(t *testing.T) {
	t.Parallel()
	faultrows.StaleConnections(t, claims)
}

func TestFrozenNode_FailsTheClaimsOfItsOwnKeysOnly(t *testing.T) {
	t.Parallel()
	faultrows.FrozenNode(t, claims)
}

func TestDistance_AClaimIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	faultrows.Distance(t, claims)
}

func TestHiccup_FailsNoClaim(t *testing.T) {
	t.Parallel()
	faultrows.Hiccup(t, claims)
}
