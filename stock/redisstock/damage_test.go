package redisstock_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// unharmed returns an error if a call on a pool, one of whose keys has a wrong
// type, succeeds or changes any key.
func (s *stand) unharmed(which int, call func() error) error {
	key, whole := s.keys()[which], s.state()
	defer s.set(whole)
	s.client.Del(s.t.Context(), key)
	if which == 0 {
		s.client.LPush(s.t.Context(), key, "a list where a hash should be")
	} else {
		s.client.Set(s.t.Context(), key, "a string where there should be none", 0)
	}
	broken := s.contents()
	err := call()
	switch {
	case err == nil:
		return errorf("the call succeeds while %s has a wrong type", key)
	case isFinal(err):
		return errorf("%s has a wrong type and the answer is a definite %w", key, err)
	case !maps.Equal(broken, s.contents()):
		return errorf("keys were changed while %s has a wrong type", key)
	}
	return nil
}

func TestAKeyOfAWrongTypeLosesNoUnit(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	id := s.hold("ann").ID
	s.levels(9, 1, 0)
	for which, name := range []string{"pool", "due", "journal"} {
		if err := s.unharmed(which, func() error { _, err := s.store.Reserve(t.Context(), s.ask("bob")); return err }); err != nil {
			t.Errorf("reserve with a broken %s: %v", name, err)
		}
		if name != "journal" { // nothing is due, so a sweep has nothing to tell
			if err := s.unharmed(which, func() error { return redisstock.SweepOnce(t.Context(), s.store, s.pool.SKU) }); err != nil {
				t.Errorf("sweep with a broken %s: %v", name, err)
			}
		}
		if name == "due" {
			continue // to confirm or cancel one does not ask the index
		}
		if err := s.unharmed(which, func() error { _, err := s.store.Confirm(t.Context(), id); return err }); err != nil {
			t.Errorf("confirm with a broken %s: %v", name, err)
		}
		if err := s.unharmed(which, func() error { _, err := s.store.Cancel(t.Context(), id); return err }); err != nil {
			t.Errorf("cancel with a broken %s: %v", name, err)
		}
	}
	s.levels(9, 1, 0)
	if _, err := s.store.Confirm(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.hold("bob")
	s.levels(8, 1, 1)
}

func TestARecordThatCannotBeReadLosesNoUnit(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	id := s.hold("ann").ID
	buyer := id.BuyerPart()
	client.HSet(t.Context(), s.keys()[0], string(buyer[:]), "no record at all, yet long enough")
	before := s.contents()
	if hold, err := s.store.Reserve(t.Context(), s.ask("ann")); err == nil || isFinal(err) {
		t.Errorf("got %+v, %v", hold, err)
	}
	if hold, err := s.store.Cancel(t.Context(), id); err == nil {
		t.Errorf("got %+v", hold)
	}
	if !maps.Equal(before, s.contents()) {
		t.Error("keys were changed")
	}
	s.hold("bob") // others are not held up
}

func TestWithoutMemoryNothingIsTakenWhileUnitsCanStillBeReleased(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t, "maxmemory-policy noeviction")
	client := server.Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	one, two := s.hold("ann").ID, s.hold("bob").ID
	brief := newStand(t, s.store, client, func(p *stock.Pool) { p.Hold = 50 * time.Millisecond })
	brief.hold("cay")
	awaitServer(t, client, 50*time.Millisecond)
	client.ConfigSet(t.Context(), "maxmemory", "1")
	before := s.contents()
	if hold, err := s.store.Reserve(t.Context(), s.ask("dan")); err == nil || !contains(err, "OOM") {
		t.Errorf("reserve: got %+v, %v", hold, err)
	}
	if !maps.Equal(before, s.contents()) {
		t.Error("the refused reservation changed keys")
	}
	if hold, err := s.store.Confirm(t.Context(), one); err != nil {
		t.Errorf("confirm: got %+v, %v", hold, err)
	}
	if hold, err := s.store.Cancel(t.Context(), two); err != nil {
		t.Errorf("cancel: got %+v, %v", hold, err)
	}
	if err := redisstock.SweepOnce(t.Context(), s.store, brief.pool.SKU); err != nil {
		t.Errorf("sweep: %v", err)
	}
	s.levels(9, 0, 1)
	brief.levels(10, 0, 0)
	client.ConfigSet(t.Context(), "maxmemory", "0")
	s.hold("dan")
	s.levels(8, 1, 1)
}

func TestAReadOnlyReplicaIsNoPlaceToSell(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	client := server.Client(t, withoutRetries)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	id := s.hold("ann").ID
	if err := client.Do(t.Context(), "replicaof", "127.0.0.1", "1").Err(); err != nil { // nobody is there
		t.Fatal(err)
	}
	_, errReserve := s.store.Reserve(t.Context(), s.ask("bob"))
	_, errConfirm := s.store.Confirm(t.Context(), id)
	for name, err := range map[string]error{"reserve": errReserve, "confirm": errConfirm} {
		if err == nil || isFinal(err) && !errors.Is(err, stock.ErrFenced) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := client.Do(t.Context(), "replicaof", "no", "one").Err(); err != nil {
		t.Fatal(err)
	}
	s.levels(9, 1, 0)
}
