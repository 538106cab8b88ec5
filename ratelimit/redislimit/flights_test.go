package redislimit_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/ratelimit/redislimit"
)

func TestEightFlightsThatCrossAndLoseRepliesNeverAllowMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	limit := ratelimit.Limit{Name: "day", Quota: 60, Window: 24 * time.Hour}
	for range 5 {
		seed := rand.Uint64()
		random, dialer := rand.New(rand.NewPCG(seed, 1)), faulty.NewDialer()
		// The client sends again what was not answered, as it does by default.
		client := testenv.Redis(t).Client(t, func(o *redis.Options) { o.Dialer = dialer.DialContext })
		var lost []*faulty.Fault
		for range 8 {
			lost = append(lost, dialer.CutReply(2+random.IntN(80), faulty.Contains("evalsha")))
		}
		for range 40 {
			dialer.DelayReply(1+random.IntN(80), time.Duration(random.IntN(15))*time.Millisecond, faulty.Contains("evalsha"))
		}
		var allowed, charged atomic.Int64
		var flights sync.WaitGroup
		prefix := testenv.Name(t)
		for i := range 8 { // a process each: one call is one flight
			limiter := newLimiter(t, client, &redislimit.Options{Prefix: prefix, Timeout: time.Minute})
			cost := int64(1 + i%2)
			flights.Go(func() {
				for range 12 {
					d, err := limiter.Take(t.Context(), ratelimit.Take{Limit: limit, Key: "k", Cost: cost})
					if err == nil && d.Allowed {
						allowed.Add(1)
						charged.Add(cost)
					}
				}
			})
		}
		flights.Wait()
		twice := 0
		for _, f := range lost {
			twice += f.Count()
		}
		// Each lost reply may have charged once more, by 2 at most; who asks for 2
		// may leave 1.
		if n := charged.Load(); n > 60 || n < 60-int64(2*twice)-1 {
			t.Errorf("seed %d: %d were charged, want 60 and %d lost replies less", seed, n, twice)
		}
		if twice == 0 || allowed.Load() == 0 {
			t.Errorf("seed %d: %d replies were lost, %d takes allowed", seed, twice, allowed.Load())
		}
	}
}
