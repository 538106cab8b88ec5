package redisstock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// guard is a line of a script that a promise rests on, and the promise: a
// test that must pass with the line and fail without it.
type guard struct {
	name    string
	script  string   // the file
	edits   []string // a text, what stands in its place without the guard, and so on
	opts    redisstock.Options
	pool    func(p *stock.Pool)
	ledger  bool // the pool has a ledger, whose verdicts the test gives
	promise func(m *mutant) error
}

// mutant is a store that lacks a guard, or the real one.
type mutant struct {
	*stand
	clock  *clock
	ledger *judge
}

func TestEveryGuardIsNeeded(t *testing.T) {
	t.Parallel()
	for _, guards := range [][]guard{idGuards, timeGuards, lifeGuards, fenceGuards, journalGuards, ledgerGuards} {
		for _, g := range guards {
			t.Run(g.name, func(t *testing.T) {
				t.Parallel()
				if err := g.promise(g.open(t, false)); err != nil {
					t.Errorf("with the guard: %v", err)
				}
				if err := g.promise(g.open(t, true)); err == nil {
					t.Error("without the guard nothing is noticed")
				}
			})
		}
	}
}

// open makes the store of one try, with a server of its own.
func (g *guard) open(t *testing.T, without bool) *mutant {
	t.Helper()
	m := &mutant{clock: newClock(t)}
	client := redis.NewClient(&redis.Options{Addr: m.clock.server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	var ledger stock.Ledger
	if g.ledger {
		m.ledger = &judge{}
		ledger = m.ledger
	}
	store, err := redisstock.New(client, ledger, redisstock.JournalRelayed(3), &g.opts)
	if err == nil && without {
		err = redisstock.Mutate(store, g.script, g.edits...)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.stand = newStand(t, store, client, g.pool)
	return m
}

// try reserves and forgets the hold.
func (s *stand) try(r stock.Request) error {
	_, err := s.store.Reserve(s.t.Context(), r)
	return err
}

// wants returns an error unless err is the wanted one; nil wants success.
func wants(err, want error) error {
	if !errors.Is(err, want) {
		return errorf("got %v, want %v", err, want)
	}
	return nil
}

// is returns an error unless the reservation stands so.
func (s *stand) is(id stock.ID, want stock.State) error {
	hold, err := s.store.Lookup(s.t.Context(), id)
	if err != nil || hold.State != want {
		return errorf("it is %v, %v; want %v", hold.State, err, want)
	}
	return nil
}

// judge is a ledger whose verdicts the test gives.
type judge struct {
	terms   stock.Terms
	mark    stock.Mark
	verdict func(id stock.ID) stock.Verdict
	asked   int
}

func (j *judge) Open(_ context.Context, p stock.Pool) (stock.Terms, stock.Mark, bool, error) {
	existed := j.mark.Epoch != 0
	if !existed {
		j.terms, j.mark = stock.Terms{Pool: p, Version: 1}, stock.Mark{Epoch: 1}
	}
	return j.terms, j.mark, existed, nil
}

func (j *judge) Pool(context.Context, string) (stock.Terms, stock.Mark, error) {
	return j.terms, j.mark, nil
}

func (j *judge) Adjust(_ context.Context, a stock.Adjustment) (stock.Terms, error) {
	next, _, err := j.terms.Adjust(&a)
	j.terms = next
	return next, err
}

func (j *judge) Find(_ context.Context, _ string, ids []stock.ID) ([]stock.Entry, error) {
	entries := make([]stock.Entry, len(ids))
	for i, id := range ids {
		entries[i].ID = id
	}
	return entries, nil
}
func (j *judge) Pools(context.Context) ([]string, error)            { return []string{j.terms.SKU}, nil }
func (j *judge) Retire(context.Context, string) error               { return nil }
func (j *judge) SaveMark(context.Context, string, stock.Mark) error { return nil }

func (j *judge) Expire(_ context.Context, _ string, ids []stock.ID) ([]stock.Verdict, error) {
	verdicts := make([]stock.Verdict, len(ids))
	for i, id := range ids {
		j.asked++
		verdicts[i] = j.verdict(id)
	}
	return verdicts, nil
}

func (j *judge) RaiseEpoch(_ context.Context, _ string, from int64) (stock.Mark, bool, error) {
	raised := j.mark.Epoch == from
	if raised {
		j.mark = stock.Mark{Epoch: from + 1}
	}
	return j.mark, raised, nil
}

func (j *judge) Entries(context.Context, string, stock.ID, int) ([]stock.Entry, error) {
	return nil, nil
}
func (j *judge) Totals(context.Context, string) (stock.Totals, error) { return stock.Totals{}, nil }

func TestARetryThatIsAnsweredFromMemoryWouldBeNoticed(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]bool{"as it is": false, "if a retry counted as a first attempt": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := clocked(t, &redisstock.Options{Memory: time.Hour}, func(p *stock.Pool) { p.Total = 1 })
			winner, loser := s.ask("ann"), s.ask("bob")
			loser.First = true
			if err := errors.Join(s.try(winner), wants(s.try(loser), stock.ErrAllHeld)); err != nil {
				t.Fatal(err)
			}
			winner.First = first
			if hold, err := s.store.Reserve(t.Context(), winner); (err == nil && hold.Repeated) == first {
				t.Errorf("the winner hears %+v, %v", hold, err)
			}
		})
	}
}

func TestAnIDWithAnotherBuyersClaimTouchesNothing(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, nil)
	mine := s.hold("ann").ID
	foreign := stock.NewID(s.pool.SKU, "bob", mine.ClaimPart())
	for _, step := range []func(context.Context, stock.ID) (stock.Hold, error){s.confirm, s.store.Cancel, s.store.Return, s.store.Lookup} {
		if hold, err := step(t.Context(), foreign); !errors.Is(err, stock.ErrNotFound) {
			t.Errorf("got %+v, %v", hold, err)
		}
	}
	r := s.ask("bob")
	r.ID = mine
	var mismatch *stock.MismatchError
	if err := s.try(r); !errors.As(err, &mismatch) || mismatch.Field != "buyer" {
		t.Errorf("got %v", err)
	}
	if err := s.is(mine, stock.Held); err != nil {
		t.Error(err)
	}
}
