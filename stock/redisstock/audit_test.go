package redisstock_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// audit audits the stand's pool, or ends the test.
func (s *stand) audit() stock.Audit {
	s.t.Helper()
	a, err := s.store.Audit(s.t.Context(), s.pool.SKU)
	if err != nil {
		s.t.Fatalf("audit: %v", err)
	}
	return a
}

// reconcile mends the stand's pool, or ends the test.
func (s *stand) reconcile() stock.Audit {
	s.t.Helper()
	a, err := s.store.Reconcile(s.t.Context(), s.pool.SKU)
	if err != nil {
		s.t.Fatalf("reconcile: %v", err)
	}
	return a
}

// found fails the test unless the audit has found just these kinds of fault.
func (s *stand) found(a stock.Audit, kinds ...stock.FaultKind) {
	s.t.Helper()
	ok := len(a.Faults) == len(kinds)
	for i := range kinds {
		ok = ok && a.Faults[i].Kind == kinds[i]
	}
	if !ok {
		s.t.Errorf("found %v, want %v", a.Faults, kinds)
	}
}

// field is the name of the field that holds the buyer's reservations.
func field(buyer string) string {
	part := stock.NewID("", buyer, [16]byte{}).BuyerPart()
	return string(part[:])
}

func TestAnAuditOfABusyPoolFindsNothing(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Total = 1000 })
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	for i := range 8 {
		busy.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				hold, err := s.store.Reserve(t.Context(), s.ask(fmt.Sprint(i, n%10)))
				if err != nil {
					continue
				}
				switch n % 3 {
				case 0:
					_, _ = s.store.Cancel(t.Context(), hold.ID)
				case 1:
					_, _ = s.store.Confirm(t.Context(), hold.ID)
					_, _ = s.store.Return(t.Context(), hold.ID)
				}
			}
		})
	}
	for range 20 {
		if a := s.audit(); !a.Clean() || a.Changed || a.Levels.Free+a.Held+a.Sold != 1000 {
			t.Errorf("got %+v", a)
		}
	}
	stop()
	busy.Wait()
	if a := s.audit(); !a.Clean() || a.Held != a.Levels.Held || a.Sold != a.Levels.Sold {
		t.Errorf("at rest: %+v", a)
	}
}

func TestALargePoolIsAuditedInPages(t *testing.T) {
	t.Parallel()
	const holds = 25_000
	client := testenv.NewRedis(t).Client(t)
	store := mustStore(t, client, nil, nil)
	s := newStand(t, store, client, func(p *stock.Pool) { p.Total = holds })
	crowd(500, func(i int) {
		for n := range holds / 500 {
			s.hold(fmt.Sprint(i, "-", n))
		}
	})
	if a := s.audit(); !a.Clean() || a.Looked != holds || a.Held != holds || a.Changed {
		t.Errorf("got %+v", a)
	}
	s.edit("m", `;0,25000,0;$`, ";1,24999,0;")
	s.found(s.audit(), stock.FaultCount)
	if a := s.reconcile(); !a.Clean() || len(a.Repairs) != 1 || !a.Repairs[0].Done {
		t.Errorf("got %+v", a)
	}
	s.levels(0, holds, 0)
}

func TestCountsThatDriftAreFoundAndMended(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	s.hold("ann")
	s.edit("m", `;9,1,0;`, ";7,1,1;") // a unit is stranded, another sold to nobody
	s.found(s.audit(), stock.FaultCount)
	a := s.reconcile()
	s.found(a)
	if len(a.Repairs) != 1 || !a.Repairs[0].Done {
		t.Errorf("repairs %+v", a.Repairs)
	}
	s.levels(9, 1, 0)
	if a := s.reconcile(); len(a.Repairs) != 0 {
		t.Errorf("there is nothing to mend, yet %+v", a.Repairs)
	}
}

func TestAHoldThatNothingWouldEndIsFoundByItsIDAndGetsItsEndBack(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, nil, nil)
	id := s.hold("ann").ID
	s.hold("bob")
	s.client.ZRemRangeByScore(t.Context(), s.keys()[1], "0", "9007199254740991")
	s.hold("cay")
	a := s.audit()
	s.found(a, stock.FaultStray, stock.FaultStray)
	if a.Faults[0].ID != id && a.Faults[1].ID != id {
		t.Errorf("%v is not among %v", id, a.Faults)
	}
	s.found(s.reconcile())
	c.pass(time.Hour)
	if err := redisstock.SweepOnce(t.Context(), s.store, s.pool.SKU); err != nil {
		t.Fatal(err)
	}
	s.levels(10, 0, 0)
}

func TestABuyerOverTheLimitAndARecordThatCannotBeReadAreNamed(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Limit = 2 })
	s.hold("ann")
	s.hold("ann")
	s.hold("bob")
	s.edit("t", `^(1,0,1,0,0),2,`, "$1,1,")
	client.HSet(t.Context(), s.keys()[0], field("bob"), "no record at all, yet long enough")
	s.found(sorted(s.audit()), stock.FaultRecord, stock.FaultCount, stock.FaultLimit)
	// The units of what can't be read may be sold: no repair gives them away.
	for _, r := range s.reconcile().Repairs {
		if r.Done || r.Text == "" {
			t.Errorf("got %+v", r)
		}
	}
	s.levels(7, 3, 0)
}

// after runs do once a command of this name has been answered.
type after struct {
	name string
	do   func()
	once sync.Once
}

func (*after) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *after) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == h.name {
			h.once.Do(h.do)
		}
		return err
	}
}

func (*after) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func TestASuspectIsJudgedByTheTermsOfTheMomentWhenItIsReadAgain(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Limit = 2 })
	s.hold("ann")
	s.hold("ann")
	s.edit("t", `^(1,0,1,0,0),2,`, "$1,1,")
	client.AddHook(&after{name: "hgetall", do: func() { s.edit("t", `^(1,0,1,0,0),1,`, "$1,2,") }})
	s.found(s.audit())
	s.edit("t", `^(1,0,1,0,0),2,`, "$1,1,")
	s.found(s.audit(), stock.FaultLimit)
}

func sorted(a stock.Audit) stock.Audit {
	for i := range a.Faults {
		for j := range i {
			if a.Faults[i].Kind < a.Faults[j].Kind {
				a.Faults[i], a.Faults[j] = a.Faults[j], a.Faults[i]
			}
		}
	}
	return a
}

func TestARepairDoesNotUndoWhatHappensMeanwhile(t *testing.T) {
	t.Parallel()
	s, _ := clocked(t, nil, nil)
	id := s.hold("ann").ID
	s.client.ZRemRangeByScore(t.Context(), s.keys()[1], "0", "9007199254740991")
	a := s.audit()
	s.found(a, stock.FaultStray)
	if _, err := s.store.Confirm(t.Context(), id); err != nil { // after the audit, before the repair
		t.Fatal(err)
	}
	if r, err := redisstock.Repair(t.Context(), s.store, s.pool.SKU, a.Faults[0]); err != nil || r.Done {
		t.Errorf("got %+v, %v", r, err)
	}
	s.levels(9, 0, 1)
}

func TestFinishedIDsAreForgottenThoughTheirBuyersNeverComeAgain(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, &redisstock.Options{Retention: time.Hour}, func(p *stock.Pool) { p.Total = 5000 })
	kept := s.hold("ann").ID
	if _, err := s.store.Confirm(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	crowd(20, func(i int) {
		for n := range 60 {
			if _, err := s.store.Cancel(t.Context(), s.hold(fmt.Sprint(i, "-", n)).ID); err != nil {
				t.Errorf("cancel: %v", err)
			}
		}
	})
	mixed := s.hold("ann").ID // ends now; ann's other one is sold and stays
	if _, err := s.store.Cancel(t.Context(), mixed); err != nil {
		t.Fatal(err)
	}
	fields := func() int64 { return s.client.HLen(t.Context(), s.keys()[0]).Val() }
	c.pass(time.Hour - time.Millisecond)
	s.forgetAll()
	if n := fields(); n < 1200 {
		t.Fatalf("%d fields are left before the retention is over", n)
	}
	c.pass(time.Hour)
	s.forgetAll()
	if n := fields(); n > 6 { // terms, counts and ann
		t.Errorf("%d fields are left", n)
	}
	if err := s.is(kept, stock.Sold); err != nil {
		t.Error(err)
	}
	if hold, err := s.store.Lookup(t.Context(), mixed); err == nil {
		t.Errorf("it is still known: %+v", hold)
	}
	s.found(s.audit())
}

func TestForgettingGoesOnAfterARoundThatAClockAheadHasBegun(t *testing.T) {
	t.Parallel()
	s, c := clocked(t, &redisstock.Options{Retention: time.Hour}, nil)
	gone := s.hold("ann").ID
	if _, err := s.store.Cancel(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	s.client.HSet(t.Context(), s.keys()[0], "f", time.Now().Add(1000*time.Hour).UnixMilli())
	c.pass(2 * time.Hour)
	s.forgetAll()
	if hold, err := s.store.Lookup(t.Context(), gone); err == nil {
		t.Errorf("it is still known: %+v", hold)
	}
}

// forgetAll makes a whole round of forgetting.
func (s *stand) forgetAll() {
	s.t.Helper()
	for range 1000 {
		more, err := redisstock.Forget(s.t.Context(), s.store, s.pool.SKU)
		if err != nil {
			s.t.Fatalf("forget: %v", err)
		}
		if !more {
			return
		}
	}
	s.t.Fatal("forgetting has no end")
}
