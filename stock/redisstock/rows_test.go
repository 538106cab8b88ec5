package redisstock_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/internal/testenv/faultrows"
	"github.com/firstcome/firstcome/stock"
)

// reservations is a store at its defaults with one pool; each call is a buyer of
// its own.
func reservations(t *testing.T, client redis.UniversalClient) faultrows.Call {
	s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Total = 1_000_000 })
	return func(ctx context.Context, i int) error {
		_, err := s.store.Reserve(ctx, s.ask("buyer"+strconv.Itoa(i)))
		return err
	}
}

// onEachNode is reservations with a pool on each node of a cluster.
func onEachNode(t *testing.T, client redis.UniversalClient) faultrows.Call {
	pools := threePools(t, client)
	return func(ctx context.Context, i int) error {
		s := pools[(i+999)%3]
		_, err := s.store.Reserve(ctx, s.ask("buyer"+strconv.Itoa(i)))
		return err
	}
}

// threePools opens pools whose slots are in the first, the second and the last
// third, as the nodes of testenv's cluster have them.
func threePools(t *testing.T, client redis.UniversalClient) [3]*stand {
	store := mustStore(t, client, nil, nil)
	var pools [3]*stand
	for i, found := 0, 0; found < 3; i++ {
		s := newStand(t, store, client, func(p *stock.Pool) { p.SKU, p.Total = fmt.Sprintf("%s-%d", p.SKU, i), 1_000_000 })
		if third := s.slot() * 3 / (1 << 14); pools[third] == nil {
			pools[third] = s
			found++
		}
	}
	return pools
}

func TestOneStalledConnectionFailsNoMoreReservationsThanPlainScripts(t *testing.T) {
	t.Parallel()
	faultrows.OneStalledConnection(t, reservations)
}

func TestStaleConnectionsLetReservationsBeBackWithinSeconds(t *testing.T) {
	t.Parallel()
	faultrows.StaleConnections(t, reservations)
}

func TestAFrozenNodeFailsTheReservationsOfItsOwnPoolsOnly(t *testing.T) {
	t.Parallel()
	faultrows.FrozenNode(t, onEachNode)
}

func TestOverADistanceAReservationIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	faultrows.Distance(t, reservations)
}

func TestAFrozenNodeHarmsNoStepOfAPoolElsewhere(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t)
	pools := threePools(t, cluster.Client(t))
	frozen, well := pools[0], pools[1]
	const steps = 200
	var sold, back [steps]stock.ID
	for i := range steps {
		sold[i], back[i] = well.hold(fmt.Sprint("s", i)).ID, well.hold(fmt.Sprint("c", i)).ID
	}
	stuck := frozen.hold("stuck").ID
	if _, err := well.store.Lookup(t.Context(), sold[0]); err != nil {
		t.Fatal(err)
	}
	cluster.Nodes()[0].Stop()
	toll := faultrows.Load{Rate: 200, Long: 2 * time.Second, Patience: 2 * time.Second}.Run(t.Context(), func(ctx context.Context, i int) error {
		var err error
		switch at := i / 4 % steps; i % 4 {
		case 0: // what meets the frozen node is not counted: it fails
			_, _ = frozen.store.Lookup(ctx, stuck)
		case 1:
			_, err = well.store.Confirm(ctx, sold[at])
		case 2:
			_, err = well.store.Cancel(ctx, back[at])
		case 3:
			_, err = well.store.Lookup(ctx, sold[at])
		}
		return err
	})
	cluster.Nodes()[0].Cont()
	t.Log(toll)
	if toll.Failed > toll.Calls/50 {
		t.Errorf("%d of %d steps failed", toll.Failed, toll.Calls)
	}
}

func TestAHiccupFailsNoReservation(t *testing.T) {
	t.Parallel()
	faultrows.Hiccup(t, reservations)
}

// The server's refusals are answers: no number of them tells that it is away.
func TestAPoolThatCannotBeReadKeepsNoOtherFromSelling(t *testing.T) {
	t.Parallel()
	client := testenv.NewRedis(t).Client(t)
	pools := threePools(t, client)
	broken, well := pools[0], pools[1]
	for _, key := range broken.keys() {
		client.Del(t.Context(), key)
		if err := client.Set(t.Context(), key, "no pool", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		if _, err := broken.store.Reserve(t.Context(), broken.ask(name(i))); err == nil {
			t.Fatal("a pool of other bytes sells")
		}
		well.hold(name(i))
	}
	for i := range 20 {
		_, _ = broken.store.Reserve(t.Context(), broken.ask(name(i)))
	}
	for i := range 20 {
		well.hold(name(1000 + i))
	}
}
