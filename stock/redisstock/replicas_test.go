package redisstock_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// Two grades of patience: with a replica that answers, and with one that doesn't.
var (
	forOne = &redisstock.Options{Replicas: 1, ReplicaWait: 2 * time.Second}
	hasty  = &redisstock.Options{Replicas: 1, ReplicaWait: 100 * time.Millisecond}
)

// onPair opens a pool on a primary whose replica answers are to stand on.
func onPair(t *testing.T) (*stand, *testenv.RedisPair) {
	t.Helper()
	pair := testenv.NewRedisPair(t)
	client := pair.Primary.Client(t)
	return newStand(t, mustStore(t, client, nil, forOne), client, nil), pair
}

// as is the same pool from a store with other options.
func (s *stand) as(opts *redisstock.Options) *stand {
	s.t.Helper()
	other := *s
	other.store = mustStore(s.t, s.client, nil, opts)
	return &other
}

// graded returns an error unless the step is done and stands on so many replicas.
func graded(hold stock.Hold, err error, repeated bool, replicas int) error {
	if err != nil || hold.Repeated != repeated || hold.Replicas != replicas {
		return errorf("got %+v, %w; want repeated %v on %d replicas", hold, err, repeated, replicas)
	}
	return nil
}

func TestAnAnswerTellsOnHowManyReplicasItStands(t *testing.T) {
	t.Parallel()
	s, _ := onPair(t)
	sold, given := s.ask("ann"), s.ask("bob")
	for _, r := range []stock.Request{sold, given} {
		for _, repeated := range []bool{false, true} {
			hold, err := s.store.Reserve(t.Context(), r)
			if err := graded(hold, err, repeated, 1); err != nil {
				t.Errorf("reserve: %v", err)
			}
		}
	}
	for _, step := range []struct {
		name string
		do   func(context.Context, stock.ID) (stock.Hold, error)
		id   stock.ID
	}{
		{"confirm", s.confirm, sold.ID},
		{"cancel", s.store.Cancel, given.ID},
		{"return", s.store.Return, sold.ID},
	} {
		for _, repeated := range []bool{false, true} {
			hold, err := step.do(t.Context(), step.id)
			if err := graded(hold, err, repeated, 1); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
		}
	}
	late := s.hold("cay")
	hold, err := s.store.Extend(t.Context(), late.ID, late.Expires.Add(time.Minute))
	if err := graded(hold, err, false, 1); err != nil {
		t.Errorf("extend: %v", err)
	}
	hold, err = s.store.Lookup(t.Context(), late.ID)
	if err := graded(hold, err, false, 1); err != nil {
		t.Errorf("lookup: %v", err)
	}
	hold, err = s.as(nil).store.Reserve(t.Context(), s.ask("dan"))
	if err := graded(hold, err, false, 0); err != nil {
		t.Errorf("of a store that asks for none: %v", err)
	}
}

func TestAStoppedReplicaIsTheWeakerGradeAndTheSameIDMendsIt(t *testing.T) {
	t.Parallel()
	s, pair := onPair(t)
	quick := s.as(hasty)
	quick.hold("zoe") // it has met the pool
	bought, returned := s.hold("ann").ID, s.hold("bob").ID
	r := s.ask("cay")
	pair.Replica.Stop()

	for _, repeated := range []bool{false, true} {
		begun := time.Now()
		hold, err := quick.store.Reserve(t.Context(), r)
		took := time.Since(begun)
		if err := graded(hold, err, repeated, 0); err != nil {
			t.Errorf("reserve: %v", err)
		}
		if took < hasty.ReplicaWait || took > hasty.ReplicaWait+5*time.Second {
			t.Errorf("it was answered after %v, want about %v", took, hasty.ReplicaWait)
		}
	}
	hold, err := quick.store.Confirm(t.Context(), bought)
	if err := graded(hold, err, false, 0); err != nil {
		t.Errorf("confirm: %v", err)
	}
	hold, err = quick.store.Cancel(t.Context(), returned)
	if err := graded(hold, err, false, 0); err != nil {
		t.Errorf("cancel: %v", err)
	}
	quick.levels(7, 2, 1) // what was answered stands

	pair.Replica.Cont()
	for name, again := range map[string]func() (stock.Hold, error){
		"reserve": func() (stock.Hold, error) { return s.store.Reserve(t.Context(), r) },
		"confirm": func() (stock.Hold, error) { return s.confirm(t.Context(), bought) },
		"cancel":  func() (stock.Hold, error) { return s.store.Cancel(t.Context(), returned) },
	} {
		until(t, name+" again stands on the replica", func() bool {
			hold, err := again()
			if err != nil || !hold.Repeated {
				t.Fatalf("%s again: got %+v, %v", name, hold, err)
			}
			return hold.Replicas == 1
		})
	}
	s.levels(7, 2, 1)
}

func TestWithoutAReplicaAHoldStandsInTheWeakerGrade(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, &redisstock.Options{Replicas: 1, ReplicaWait: time.Millisecond}), client, nil)
	hold, err := s.store.Reserve(t.Context(), s.ask("ann"))
	if err := graded(hold, err, false, 0); err != nil {
		t.Error(err)
	}
	s.levels(9, 1, 0)
}

func TestACrowdSharesTheWaitForAReplica(t *testing.T) {
	t.Parallel()
	s, _ := onPair(t)
	s = newStand(t, s.store, s.client, func(p *stock.Pool) { p.SKU, p.Total = p.SKU+"-crowd", 100 })
	won := make([]int, 300)
	crowd(len(won), func(i int) {
		hold, err := s.store.Reserve(t.Context(), s.ask(name(i)))
		if err == nil {
			won[i] = 1
			err = graded(hold, err, false, 1)
		} else if isFinal(err) {
			err = nil
		}
		if err != nil {
			t.Error(err)
		}
	})
	n := 0
	for _, w := range won {
		n += w
	}
	if n != 100 {
		t.Errorf("%d won, want 100", n)
	}
	s.levels(0, 100, 0)
}

func TestWhatAReplicaHasAcknowledgedSurvivesItsPromotion(t *testing.T) {
	t.Parallel()
	s, pair := onPair(t)
	holds := map[stock.ID]stock.Hold{}
	for i := range 5 {
		hold, err := s.store.Reserve(t.Context(), s.ask(name(i)))
		if i < 2 && err == nil {
			hold, err = s.confirm(t.Context(), hold.ID)
		}
		if err := graded(hold, err, false, 1); err != nil {
			t.Fatal(err)
		}
		holds[hold.ID] = hold
	}
	s = s.as(nil) // nobody acknowledges anything from here on
	s.levels(5, 3, 2)
	pair.Primary.Kill()
	pair.Promote(t)

	s.client = pair.Replica.Client(t)
	redisstock.Reconnect(s.store, s.client)
	for who, store := range map[string]*redisstock.Store{"who saw it": s.store, "a new process": mustStore(t, s.client, nil, nil)} {
		for id, want := range holds {
			hold, err := store.Lookup(t.Context(), id)
			if err != nil || hold.State != want.State || !hold.Expires.Equal(want.Expires) {
				t.Errorf("%s found %+v, %v; want %+v", who, hold, err, want)
			}
		}
	}
	s.hold("dan") // and the sale goes on
	s.levels(4, 4, 2)
}

// changes is how many writes the server has counted.
func changes(t *testing.T, client redis.UniversalClient) (n int64) {
	t.Helper()
	info, err := client.InfoMap(t.Context(), "persistence").Result()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(info["Persistence"]["rdb_changes_since_last_save"], &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// countsLastWrite tells whether WAIT counts the replicas that have what its
// connection wrote last, as it does since Redis 7.2; before, it counted those
// that have all that was written before the connection's last command.
func countsLastWrite(t *testing.T, client redis.UniversalClient) bool {
	t.Helper()
	info, err := client.InfoMap(t.Context(), "server").Result()
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	_, _ = fmt.Sscanf(info["Server"]["redis_version"], "%d.%d", &major, &minor)
	return major > 7 || major == 7 && minor >= 2
}

// Each step is repeated over another connection, which has written nothing.
func TestARepeatWritesSomethingForWaitToCount(t *testing.T) {
	t.Parallel()
	for name, without := range map[string]bool{"as it is": false, "without that write": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, pair := onPair(t)
			again := mustStore(t, pair.Primary.Client(t), nil, hasty)
			if without {
				for _, script := range []string{"reserve", "change"} {
					if err := redisstock.Mutate(again, script, "elseif ARGV[5] == '1' then", "elseif false then"); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := again.Levels(t.Context(), s.pool.SKU); err != nil { // it has met the pool
				t.Fatal(err)
			}
			held, sold, given := s.ask("ann"), s.hold("bob").ID, s.hold("cay").ID
			pair.Replica.Stop()
			quick := s.as(hasty)
			_, errReserve := quick.store.Reserve(t.Context(), held)
			_, errConfirm := quick.store.Confirm(t.Context(), sold)
			_, errCancel := quick.store.Cancel(t.Context(), given)
			for _, err := range []error{errReserve, errConfirm, errCancel} {
				if err != nil {
					t.Fatal(err)
				}
			}
			for name, repeat := range map[string]func() (stock.Hold, error){
				"reserve": func() (stock.Hold, error) { return again.Reserve(t.Context(), held) },
				"confirm": func() (stock.Hold, error) { return again.Confirm(t.Context(), sold) },
				"cancel":  func() (stock.Hold, error) { return again.Cancel(t.Context(), given) },
			} {
				before := changes(t, s.client)
				hold, err := repeat()
				if err != nil || !hold.Repeated {
					t.Fatalf("%s: got %+v, %v", name, hold, err)
				}
				wrote := changes(t, s.client) > before
				if wrote == without {
					t.Errorf("%s: the repeat wrote something: %v", name, wrote)
				}
				if claims := hold.Replicas == 1; claims && !without {
					t.Errorf("%s: a stopped replica is said to have it", name)
				} else if without && !claims && countsLastWrite(t, s.client) {
					t.Errorf("%s: without a write nothing is noticed", name)
				}
			}
		})
	}
}

func TestReplicasWithAClientThatCannotWaitForThemAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}, HeartbeatFrequency: time.Hour})
	t.Cleanup(func() { _ = ring.Close() })
	if _, err := redisstock.New(ring, nil, redisstock.JournalOff, &redisstock.Options{Replicas: 1}); err == nil {
		t.Error("it was taken")
	}
	if _, err := redisstock.New(ring, nil, redisstock.JournalOff, nil); err != nil {
		t.Errorf("without replicas: %v", err)
	}
}
