package redisstock_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/stocktest"
)

// stand is one store with one pool.
type stand struct {
	t      testing.TB
	store  *redisstock.Store
	client redis.UniversalClient // past all faults
	pool   stock.Pool
}

// newStand opens a pool of ten units, to be edited, on a store.
func newStand(t testing.TB, store *redisstock.Store, client redis.UniversalClient, edit func(p *stock.Pool)) *stand {
	t.Helper()
	s := &stand{t: t, store: store, client: client, pool: stock.Pool{SKU: testenv.Name(t), Total: 10, Hold: time.Hour}}
	if edit != nil {
		edit(&s.pool)
	}
	if _, err := store.Open(t.Context(), s.pool); err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

// onServer opens a stand on a private server, through a dialer that can fail.
func onServer(t testing.TB, server *testenv.RedisServer, opts *redisstock.Options, edits ...func(*redis.Options)) (*stand, *faulty.Dialer) {
	t.Helper()
	dialer := faulty.NewDialer()
	through := server.Client(t, append(edits, func(o *redis.Options) { o.Dialer = dialer.DialContext })...)
	return newStand(t, mustStore(t, through, nil, opts), server.Client(t), nil), dialer
}

func mustStore(t testing.TB, client redis.UniversalClient, ledger stock.Ledger, opts *redisstock.Options) *redisstock.Store {
	t.Helper()
	store, err := redisstock.New(client, ledger, redisstock.JournalRelayed(0), opts)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// ask is a fresh request for one unit.
func (s *stand) ask(buyer string) stock.Request {
	return stock.Request{ID: stock.NewID(s.pool.SKU, buyer, stocktest.Claim()), SKU: s.pool.SKU, Buyer: buyer, Quantity: 1}
}

// hold reserves one unit for a buyer, or ends the test.
func (s *stand) hold(buyer string) stock.Hold {
	s.t.Helper()
	hold, err := s.store.Reserve(s.t.Context(), s.ask(buyer))
	if err != nil {
		s.t.Fatalf("reserve: %v", err)
	}
	return hold
}

// counts returns an error unless the pool counts so.
func (s *stand) counts(free, held, sold int64) error {
	l, err := s.store.Levels(s.t.Context(), s.pool.SKU)
	if err != nil {
		return fmt.Errorf("levels: %w", err)
	}
	if l.Free != free || l.Held != held || l.Sold != sold || l.Total != free+held+sold {
		return fmt.Errorf("levels are %+v, want free %d, held %d, sold %d", l, free, held, sold)
	}
	return nil
}

func (s *stand) levels(free, held, sold int64) {
	s.t.Helper()
	if err := s.counts(free, held, sold); err != nil {
		s.t.Fatal(err)
	}
}

// confirm is Confirm of the whole.
func (s *stand) confirm(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return s.store.Confirm(ctx, id)
}

func (s *stand) keys() []string { return redisstock.Keys(s.store, s.pool.SKU) }

// contents is what the pool's keys say, whatever their order within.
func (s *stand) contents() map[string]string {
	s.t.Helper()
	ctx, contents := s.t.Context(), map[string]string{}
	for _, key := range s.keys() {
		kind, err := s.client.Type(ctx, key).Result()
		var all any
		if err == nil {
			switch kind {
			case "hash":
				all, err = s.client.HGetAll(ctx, key).Result()
			case "zset":
				all, err = s.client.ZRangeWithScores(ctx, key, 0, -1).Result()
			case "stream":
				all, err = s.client.XRange(ctx, key, "-", "+").Result()
			default:
				all = kind
			}
		}
		if err != nil {
			s.t.Fatalf("read %s: %v", key, err)
		}
		contents[key] = fmt.Sprint(all)
	}
	return contents
}

// state is a dump of the pool's keys for set, "" for a missing one. Two dumps
// may differ though nothing has changed.
func (s *stand) state() map[string]string {
	s.t.Helper()
	state := map[string]string{}
	for _, key := range s.keys() {
		dump, err := s.client.Dump(s.t.Context(), key).Result()
		if err != nil && err != redis.Nil { //nolint:errorlint // go-redis returns it bare
			s.t.Fatalf("dump: %v", err)
		}
		state[key] = dump
	}
	return state
}

// set puts a pool's keys back to an earlier state.
func (s *stand) set(state map[string]string) {
	s.t.Helper()
	for key, dump := range state {
		if err := s.client.Del(s.t.Context(), key).Err(); err != nil {
			s.t.Fatal(err)
		}
		if dump == "" {
			continue
		}
		if err := s.client.RestoreReplace(s.t.Context(), key, 0, dump).Err(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// until asks again and again, and ends the test if the answer does not come.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-patience.C:
			t.Fatalf("waited in vain: %s", what)
		case <-t.Context().Done():
			t.Fatalf("test ended: %s", what)
		}
	}
}

// crowd calls f from n goroutines at once and waits for them.
func crowd(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// insist repeats a request until its outcome is known.
func (s *stand) insist(ctx context.Context, r stock.Request) (stock.Hold, error) {
	for {
		hold, err := s.store.Reserve(ctx, r)
		if err == nil || isFinal(err) || ctx.Err() != nil {
			return hold, err
		}
	}
}

// scriptCalls counts the scripts that the server has run.
func (s *stand) scriptCalls() (n int64) {
	s.t.Helper()
	info, err := s.client.InfoMap(s.t.Context(), "commandstats").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{"cmdstat_evalsha", "cmdstat_eval"} {
		var calls int64
		_, _ = fmt.Sscanf(info["Commandstats"][name], "calls=%d,", &calls)
		n += calls
	}
	return n
}
