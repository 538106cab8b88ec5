package redisstock_test

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/stocktest"
)

// No test may leave a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(m), testenv.LeakOptions()...) }

// clock is a miniredis whose time moves only when told to.
type clock struct {
	server *miniredis.Miniredis
	now    time.Time
}

func newClock(t testing.TB) *clock {
	c := &clock{server: miniredis.RunT(t), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	c.server.SetTime(c.now)
	return c
}

func (c *clock) pass(d time.Duration) {
	c.now = c.now.Add(d)
	c.server.SetTime(c.now)
}

func onMiniredis(t *testing.T) stocktest.Harness {
	c := newClock(t)
	client := redis.NewClient(&redis.Options{Addr: c.server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return stocktest.Harness{
		New:  func(t *testing.T) stock.Store { return mustStore(t, client, nil, nil) },
		Now:  func(*testing.T) time.Time { return c.now },
		Pass: func(_ *testing.T, d time.Duration) { c.pass(d) },
	}
}

func onRedis(t *testing.T) stocktest.Harness {
	client := testenv.Redis(t).Client(t)
	return stocktest.Harness{
		New:  func(t *testing.T) stock.Store { return mustStore(t, client, nil, nil) },
		Now:  func(t *testing.T) time.Time { return serverTime(t, client) },
		Pass: func(t *testing.T, d time.Duration) { awaitServer(t, client, d) },
	}
}

func serverTime(t *testing.T, client redis.UniversalClient) time.Time {
	t.Helper()
	now, err := client.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// awaitServer waits until the real server's clock has moved by d.
func awaitServer(t *testing.T, client redis.UniversalClient, d time.Duration) {
	t.Helper()
	for end := serverTime(t, client).Add(d + time.Millisecond); ; {
		left := end.Sub(serverTime(t, client))
		if left <= 0 {
			return
		}
		select {
		case <-time.After(left):
		case <-t.Context().Done():
			t.Fatal("test ended while waiting")
		}
	}
}

func TestConformance(t *testing.T) {
	t.Run("miniredis", func(t *testing.T) { stocktest.Run(t, onMiniredis(t)) })
	t.Run("redis", func(t *testing.T) { stocktest.Run(t, onRedis(t)) })
}

func TestRandomOperationsMatchTheModel(t *testing.T) {
	t.Run("miniredis", func(t *testing.T) { stocktest.Random(t, onMiniredis(t)) })
	t.Run("redis", func(t *testing.T) {
		h := onRedis(t)
		h.Pass = nil
		stocktest.Random(t, h)
	})
}
