package redisstock_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/stocktest"
)

func TestConcurrentHistoriesWithLostRepliesAreLinearizable(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	for round := range 6 {
		t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			opts := &redisstock.Options{Flights: []int{1, 2, 8}[round%3], MaxBatch: 1 + round*3}
			s, dialer := onServer(t, server, opts, withoutRetries)
			s = newStand(t, s.store, s.client, func(p *stock.Pool) { p.Total, p.Limit = 4, 3 })
			random := rand.New(rand.NewPCG(seed, 1))
			for range 3 {
				dialer.CutReply(5+random.IntN(30), faulty.Contains("eval"))
				dialer.CutRequest(5+random.IntN(30), faulty.Contains("eval"))
			}
			s.checkHistory(random)
		})
	}
}

func TestConcurrentHistoriesOfFlightsThatCrossAreLinearizable(t *testing.T) {
	t.Parallel()
	for name, connect := range map[string]func(t *testing.T, edits ...func(*redis.Options)) *redis.Client{
		"Miniredis": func(t *testing.T, edits ...func(*redis.Options)) *redis.Client { return testenv.Mini(t, edits...) },
		"Redis": func(t *testing.T, edits ...func(*redis.Options)) *redis.Client {
			return testenv.Redis(t).Client(t, edits...)
		},
	} {
		for round := range 4 {
			t.Run(fmt.Sprintf("%s, round %d", name, round), func(t *testing.T) {
				t.Parallel()
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				random, dialer := rand.New(rand.NewPCG(seed, 1)), faulty.NewDialer()
				client := connect(t, withoutRetries, func(o *redis.Options) { o.Dialer = dialer.DialContext })
				store := mustStore(t, client, nil, &redisstock.Options{Flights: 8, MaxBatch: 1 + round%2})
				s := newStand(t, store, client, func(p *stock.Pool) { p.Total, p.Limit = 4, 3 })
				late := 0
				var faults []*faulty.Fault
				for range 40 {
					delay := time.Duration(random.IntN(20)) * time.Millisecond
					faults = append(faults, dialer.DelayReply(1+random.IntN(60), delay, faulty.Contains("eval")))
				}
				dialer.CutReply(5+random.IntN(30), faulty.Contains("eval"))
				s.checkHistory(random)
				for _, f := range faults {
					late += f.Count()
				}
				if late < 10 {
					t.Errorf("only %d replies came late", late)
				}
			})
		}
	}
}

// checkHistory lets callers act at once.
func (s *stand) checkHistory(random *rand.Rand) {
	history := stocktest.NewHistory(s.store, s.pool)
	var asks []stock.Request
	for i := range 10 {
		r := s.ask(name(i % 3))
		r.Quantity = 1 + random.Int64N(2)
		asks = append(asks, r)
	}
	seed, later := random.Uint64(), time.Now().Add(2*time.Hour)
	crowd(8, func(i int) {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		for range 8 {
			ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
			if random.IntN(16) == 0 {
				cancel() // given up before or after it left
			}
			r := asks[random.IntN(len(asks))]
			switch random.IntN(10) {
			case 0, 1, 2, 3:
				_, _ = history.Reserve(ctx, r)
			case 4:
				_, _ = history.Confirm(ctx, r.ID)
			case 5:
				_, _ = history.Confirm(ctx, r.ID, stock.Line{Quantity: 1})
			case 6:
				_, _ = history.Cancel(ctx, r.ID)
			case 7:
				_, _ = history.Extend(ctx, r.ID, later.Add(time.Duration(random.IntN(3))*time.Minute))
			case 8:
				_, _ = history.Adjust(ctx, stock.Adjustment{
					ID: stocktest.Claim(), SKU: s.pool.SKU, Version: 1 + random.Int64N(4), Add: []stock.Line{{Quantity: 1 - 2*random.Int64N(2)}},
				})
			default:
				_, _ = history.Return(ctx, r.ID)
			}
			cancel()
		}
	})
	for _, r := range asks {
		_, _ = history.Lookup(s.t.Context(), r.ID)
	}
	history.Check(s.t, 10*time.Second)
}
