package redisidem_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/internal/testenv"
)

// BenchmarkClaimAndEnd claims keys and ends the claims. server-µs/op is the
// processor time of Redis, which is the time of all who wait.
func BenchmarkClaimAndEnd(b *testing.B) {
	for _, c := range []struct {
		name    string
		outcome idempotency.Outcome
	}{{"released", idempotency.OutcomeReleased}, {"done", idempotency.OutcomeDone}} {
		for _, callers := range []int{1, 250} {
			b.Run(fmt.Sprintf("%s/%d-callers-a-core", c.name, callers), func(b *testing.B) { claimAndEnd(b, callers, c.outcome) })
		}
	}
}

func claimAndEnd(b *testing.B, callers int, outcome idempotency.Outcome) {
	b.Helper()
	client := testenv.NewRedis(b).Client(b)
	store := newStore(b, client)
	before := serverTime(b, client)
	var next atomic.Uint64
	b.SetParallelism(callers)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req := idempotency.ClaimRequest{Rerun: true, Terms: idempotency.Terms{Lease: time.Minute, Retention: time.Hour}}
			binary.BigEndian.PutUint64(req.ID[:], next.Add(1))
			copy(req.Token[:], req.ID[:])
			rec, err := store.Claim(context.Background(), req)
			if err == nil {
				h := idempotency.Holder{ID: req.ID, Token: req.Token, Attempt: rec.Attempt, Started: rec.Started}
				err = store.Settle(context.Background(), h, idempotency.Settlement{
					Outcome: outcome, Result: make([]byte, 200), Retention: time.Hour, UnknownRetention: time.Hour,
				})
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric((serverTime(b, client)-before)/float64(b.N), "server-µs/op")
}

// serverTime is how much processor time the server's main thread has used, in µs.
func serverTime(b *testing.B, client redis.UniversalClient) float64 {
	b.Helper()
	info, err := client.InfoMap(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	total := 0.0
	for _, name := range []string{"used_cpu_user_main_thread", "used_cpu_sys_main_thread"} {
		spent, _ := strconv.ParseFloat(info["CPU"][name], 64)
		total += spent * 1e6
	}
	return total
}
