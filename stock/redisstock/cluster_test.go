package redisstock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/stocktest"
)

func TestConformanceOnACluster(t *testing.T) {
	t.Parallel()
	client := testenv.NewRedisCluster(t).Client(t)
	stocktest.Run(t, stocktest.Harness{
		New:  func(t *testing.T) stock.Store { return mustStore(t, client, nil, nil) },
		Now:  func(t *testing.T) time.Time { return serverTime(t, client) },
		Pass: func(t *testing.T, d time.Duration) { awaitServer(t, client, d) },
	})
}

func TestPoolsOfAClusterAreSoldOnAllItsNodes(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t)
	client := cluster.Client(t)
	store := mustStore(t, client, nil, nil)
	pools := make(map[*testenv.RedisServer]*stand)
	for i := 0; len(pools) < len(cluster.Nodes()); i++ {
		s := newStand(t, store, client, func(p *stock.Pool) { p.SKU, p.Total = fmt.Sprintf("%s-%d", p.SKU, i), 50 })
		pools[cluster.Owner(t, s.slot())] = s
	}
	var all sync.WaitGroup
	for owner, s := range pools {
		if n := owner.Client(t).Exists(t.Context(), s.keys()...).Val(); n != int64(len(s.keys())) {
			t.Errorf("%d of the pool's keys are where its slot is", n)
		}
		all.Go(func() {
			var wins atomic.Int64
			crowd(200, func(i int) {
				hold, err := store.Reserve(t.Context(), s.ask(name(i)))
				if turnedAway(err) {
					return
				}
				wins.Add(1)
				if err == nil {
					_, err = store.Confirm(t.Context(), hold.ID)
				}
				if err != nil {
					t.Error(err)
				}
			})
			if wins.Load() != 50 {
				t.Errorf("%d won, want 50", wins.Load())
			}
		})
	}
	all.Wait()
	for _, s := range pools {
		s.levels(0, 0, 50)
		s.mustBeClean()
	}
}

// turnedAway tells that there was no unit.
func turnedAway(err error) bool {
	return errors.Is(err, stock.ErrAllHeld) || errors.Is(err, stock.ErrSoldOut)
}

// slot is where the pool is in a cluster.
func (s *stand) slot() int { return testenv.RedisSlot(s.keys()[0]) }

// mustBeClean fails the test unless an audit finds nothing.
func (s *stand) mustBeClean() {
	s.t.Helper()
	audit, err := s.store.Audit(s.t.Context(), s.pool.SKU)
	if err != nil || !audit.Clean() {
		s.t.Errorf("the audit: %v, %v", audit.Faults, err)
	}
}

// eachDurability runs a test with and without waiting for replicas, of which
// the cluster has none: what is asked for all the same has to find the slot.
func eachDurability(t *testing.T, test func(t *testing.T, opts redisstock.Options)) {
	t.Helper()
	for name, opts := range map[string]redisstock.Options{
		"as it is":         {},
		"asking a replica": {Replicas: 1, ReplicaWait: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, opts)
		})
	}
}

// journey is a pool whose slot travels through a cluster during the sale.
type journey struct {
	*stand
	cluster *testenv.RedisCluster
}

func newJourney(t *testing.T, opts *redisstock.Options, edit func(p *stock.Pool)) *journey {
	t.Helper()
	cluster := testenv.NewRedisCluster(t)
	client := cluster.Client(t)
	return &journey{newStand(t, mustStore(t, client, nil, opts), client, edit), cluster}
}

// thereAndBack moves the slot to another node and home again, key by key: no
// key moves before someone was turned away for the one before. between is
// called before, between and after the moves; turned before each such wait.
func (j *journey) thereAndBack(between, turned func()) {
	j.t.Helper()
	home := j.cluster.Owner(j.t, j.slot())
	away := j.cluster.Nodes()[0]
	if away == home {
		away = j.cluster.Nodes()[1]
	}
	between()
	for _, way := range [][2]*testenv.RedisServer{{home, away}, {away, home}} {
		left := len(j.keys())
		j.cluster.MoveSlot(j.t, j.slot(), way[1], func(string) {
			left--
			kind := "TRYAGAIN" // some keys are here and some there
			if left == 0 {
				kind = "ASK" // all are there, and the slot is not
			}
			before := refusals(j.t, way[0], kind)
			turned()
			until(j.t, "someone is told "+kind, func() bool { return refusals(j.t, way[0], kind) > before })
		})
		if left != 0 {
			j.t.Errorf("%d keys were not moved", left)
		}
		between()
	}
}

// refusals is how often a server has refused a command in that way.
func refusals(t testing.TB, server *testenv.RedisServer, kind string) (n int) {
	t.Helper()
	client := server.Client(t)
	defer func() { _ = client.Close() }()
	info, err := client.Info(t.Context(), "errorstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, behind, _ := strings.Cut(info, "errorstat_"+kind+":count=")
	_, _ = fmt.Sscanf(behind, "%d", &n)
	return n
}

// known repeats a step until it is known whether it was done.
func known(ctx context.Context, step func(context.Context, stock.ID) (stock.Hold, error), id stock.ID) error {
	for {
		_, err := step(ctx, id)
		if err == nil || isFinal(err) || errors.Is(err, stock.ErrNotFound) || ctx.Err() != nil {
			return err
		}
	}
}

func TestASaleWhoseSlotMovesThereAndBackLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	eachDurability(t, func(t *testing.T, opts redisstock.Options) {
		const total = 30
		j := newJourney(t, &opts, func(p *stock.Pool) { p.Total = total })
		ctx, end := context.WithCancel(t.Context())
		defer end()
		var done atomic.Int64
		var moved atomic.Bool
		var mu sync.Mutex
		want := make(map[stock.ID][]stock.EventKind)
		// buy holds a unit and brings it back or keeps it, each step once, however
		// often it has to be asked for.
		buy := func(buyer string, keep, back bool) error {
			r := j.ask(buyer)
			if _, err := j.insist(ctx, r); err != nil {
				return err
			}
			kinds := []stock.EventKind{stock.EventReserved}
			for _, step := range []struct {
				kind stock.EventKind
				do   func(context.Context, stock.ID) (stock.Hold, error)
				take bool
			}{
				{stock.EventCancelled, j.store.Cancel, !keep && !back},
				{stock.EventConfirmed, j.confirm, keep || back},
				{stock.EventReturned, j.store.Return, back},
			} {
				if !step.take {
					continue
				}
				if err := known(ctx, step.do, r.ID); err != nil {
					return fmt.Errorf("%v: %w", step.kind, err)
				}
				kinds = append(kinds, step.kind)
			}
			mu.Lock()
			defer mu.Unlock()
			want[r.ID] = kinds
			done.Add(1)
			return nil
		}
		var sale sync.WaitGroup
		for i := range 40 {
			sale.Go(func() {
				for n := 0; !moved.Load() && ctx.Err() == nil; n++ {
					err := buy(fmt.Sprintf("buyer-%d-%d", i, n), false, n%2 == 0)
					if err != nil && !turnedAway(err) && ctx.Err() == nil {
						t.Errorf("during the move: %v", err)
						return
					}
				}
				err := buy(fmt.Sprintf("buyer-%d", i), true, false)
				for errors.Is(err, stock.ErrAllHeld) { // others are about to bring theirs back, or to keep them
					err = buy(fmt.Sprintf("buyer-%d", i), true, false)
				}
				if err != nil && !turnedAway(err) && ctx.Err() == nil {
					t.Errorf("after the move: %v", err)
				}
			})
		}
		defer sale.Wait()
		defer end()
		j.thereAndBack(func() {
			before := done.Load()
			until(t, "the sale goes on", func() bool { return done.Load() > before+100 })
		}, func() {})
		moved.Store(true)
		sale.Wait()
		t.Logf("%d reservations were made and finished", len(want))
		j.levels(0, 0, total)
		j.mustBeClean()
		j.hasHappened(want)
	})
}

// hasHappened fails the test unless the journal tells just these events.
func (s *stand) hasHappened(want map[stock.ID][]stock.EventKind) {
	s.t.Helper()
	var events []stock.Event
	for _, entry := range s.drain() {
		events = append(events, entry.Events...)
	}
	got := make(map[stock.ID][]stock.EventKind)
	for i, e := range events {
		if e.Seq != int64(i+1) {
			s.t.Fatalf("event %d has number %d", i+1, e.Seq)
		}
		got[e.ID] = append(got[e.ID], e.Kind)
	}
	for id, kinds := range want {
		if !slices.Equal(got[id], kinds) {
			s.t.Errorf("%v: it was heard %v, and written %v", id, kinds, got[id])
		}
		delete(got, id)
	}
	for id, kinds := range got {
		s.t.Errorf("%v: nobody heard %v", id, kinds)
	}
}

func TestConcurrentHistoriesAreLinearizableWhileTheirSlotMoves(t *testing.T) {
	t.Parallel()
	eachDurability(t, func(t *testing.T, opts redisstock.Options) {
		j := newJourney(t, &opts, func(p *stock.Pool) { p.Total, p.Limit = 4, 3 })
		history := stocktest.NewHistory(j.store, j.pool)
		var asks []stock.Request
		for i := range 10 {
			r := j.ask(name(i % 3))
			r.Quantity = 1 + rand.Int64N(2)
			asks = append(asks, r)
		}
		const callers = 6
		turns := make(chan struct{}) // one for each call, so that the history stays short
		var called sync.WaitGroup
		for range callers {
			called.Go(func() {
				for range turns {
					r := asks[rand.IntN(len(asks))]
					switch rand.IntN(6) {
					case 0, 1, 2:
						_, _ = history.Reserve(t.Context(), r)
					case 3:
						_, _ = history.Confirm(t.Context(), r.ID)
					case 4:
						_, _ = history.Cancel(t.Context(), r.ID)
					default:
						_, _ = history.Return(t.Context(), r.ID)
					}
				}
			})
		}
		take := func(n int) {
			for range n {
				turns <- struct{}{}
			}
		}
		func() {
			defer called.Wait()
			defer close(turns)
			j.thereAndBack(func() { take(25) }, func() { take(2) })
		}()
		for _, r := range asks {
			_, _ = history.Lookup(t.Context(), r.ID)
		}
		history.Check(t, 20*time.Second)
		j.mustBeClean()
	})
}
