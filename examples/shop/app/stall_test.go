package app_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/examples/shop/app"
	"github.com/firstcome/firstcome/internal/testenv"
)

// crowdSize is how many buyers are in the shop at any moment, and clickTime how
// long each of them takes to send an order: in a stall all of them come to wait.
// The rate is well under what two cores can do with the race detector, or goodput
// would tell of the machine's other work.
const (
	crowdSize = 300
	clickTime = 3 * time.Second
)

// crowd buys without a pause: whoever has an answer leaves, and the next buyer
// comes. All try again as real clients do: under the same key, after a pause
// that grows.
type crowd struct {
	url    string
	click  time.Duration
	client *http.Client
	orders atomic.Int64 // answered with 201
	next   atomic.Int64
}

// fill runs the crowd until ctx ends.
func (c *crowd) fill(ctx context.Context) {
	c.client = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: crowdSize}}
	defer c.client.CloseIdleConnections()
	var all sync.WaitGroup
	for range crowdSize {
		all.Go(func() {
			for ctx.Err() == nil {
				rest(ctx, c.click)
				c.buy(ctx, fmt.Sprint("buyer-", c.next.Add(1)))
			}
		})
	}
	all.Wait()
}

func (c *crowd) buy(ctx context.Context, buyer string) {
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, time.Second) {
		if c.try(ctx, buyer) == http.StatusCreated {
			c.orders.Add(1)
			return
		}
		rest(ctx, pause)
	}
}

// rest pauses for a half to the whole of d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	select {
	case <-time.After(d/2 + rand.N(d/2)):
	case <-ctx.Done():
	}
}

func (c *crowd) try(ctx context.Context, buyer string) int {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/orders", strings.NewReader(`{"sku":"ticket","quantity":1}`))
	if err != nil {
		return 0
	}
	r.Header.Set("X-Buyer", buyer)
	r.Header.Set("Idempotency-Key", buyer)
	res, err := c.client.Do(r)
	if err != nil {
		return 0
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// seconds returns how many orders were placed in each of the next n seconds, or
// of fewer: three in a row with enough of them on the mean are the last. One
// would not do, since all who waited are served at once.
func (c *crowd) seconds(n int, enough int64) []int64 {
	var counts []int64
	for range n {
		before := c.orders.Load()
		time.Sleep(time.Second)
		counts = append(counts, c.orders.Load()-before)
		if lastThree(counts) >= enough {
			break
		}
	}
	return counts
}

// lastThree is the mean of the last three counts, 0 where there are fewer.
func lastThree(counts []int64) (mean int64) {
	if len(counts) < 3 {
		return 0
	}
	for _, n := range counts[len(counts)-3:] {
		mean += n
	}
	return mean / 3
}

// stallOf is how long a server stands still and how long a buyer takes to click:
// 5 s and clickTime, or FIRSTCOME_STALL ("10s") and no time at all, which wants a
// machine with nothing else to do.
func stallOf(t *testing.T) (long, click time.Duration) {
	t.Helper()
	text := os.Getenv("FIRSTCOME_STALL")
	if text == "" {
		return 5 * time.Second, clickTime
	}
	long, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return long, 0
}

func TestAfterAServerStoodStillUnderAFullCrowdGoodputIsBackByItself(t *testing.T) {
	redis, db := testenv.NewRedis(t), testenv.NewPostgres(t)
	s := start(t, func(c *app.Config) {
		c.Redis, c.DB, c.Stock, c.Hold = redis.URL(), db.NewDatabase(t), 1_000_000, time.Hour
	})
	ctx, stop := context.WithCancel(t.Context())
	long, click := stallOf(t)
	c := &crowd{url: s.URL(), click: click}
	var all sync.WaitGroup
	all.Go(func() { c.fill(ctx) })
	defer all.Wait()
	defer stop()

	c.seconds(2, math.MaxInt64)
	usual := lastThree(c.seconds(3, math.MaxInt64))
	if usual == 0 {
		t.Fatal("no orders")
	}
	for name, server := range map[string]testenv.Server{"Redis": redis, "PostgreSQL": db} {
		server.Stop()
		during := c.seconds(int(long/time.Second), math.MaxInt64)
		server.Cont()
		after := c.seconds(10, usual*9/10)
		t.Logf("orders a second: %d before, %v while %s stood still, then %v", usual, during, name, after)
		if lastThree(after) < usual*9/10 {
			t.Errorf("after %s goodput is not back to 90 %% within 10 s", name)
		}
	}
}
