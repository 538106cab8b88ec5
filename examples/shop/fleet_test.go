package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/examples/shop/app"
	"github.com/firstcome/firstcome/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// fleet is a shop in several processes on real servers.
type fleet struct {
	t     *testing.T
	redis *testenv.RedisServer
	db    string
	args  []string
	bin   string
	procs map[string]*testenv.Process
	urls  []string // of the web processes
	admin string   // of one of them
}

const fleetStock = 200

// newFleet starts the servers and, of each role, as many processes as named, with
// further flags.
func newFleet(t *testing.T, broker func() string, roles map[string]int, flags ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, redis: testenv.NewRedis(t, "appendonly yes", "appendfsync always"), procs: map[string]*testenv.Process{}}
	f.bin = testenv.Build(t, "./examples/shop")
	f.db = testenv.Postgres(t).NewDatabase(t)
	f.args = append([]string{
		"-redis", f.redis.URL(), "-db", f.db, "-broker", broker(),
		// Kafka gives a killed worker's partitions away after its session's 10 s;
		// an order must not run out of time meanwhile.
		"-stock", fmt.Sprint(fleetStock), "-hold", "1m",
	}, flags...)
	for role, n := range roles {
		for i := range n {
			f.start(fmt.Sprintf("%s-%d", role, i), role)
		}
	}
	return f
}

func (f *fleet) start(name, role string) {
	f.t.Helper()
	addr, admin := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(f.t)), fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(f.t))
	args := append([]string{"-role", role, "-addr", addr, "-admin", admin}, f.args...)
	p := testenv.Start(f.t, exec.Command(f.bin, args...))
	f.procs[name] = p
	if role == "web" {
		p.WaitLine("Selling")
		f.urls = append(f.urls, "http://"+addr)
		f.admin = "http://" + admin
	} else {
		p.WaitLine("is running")
	}
}

// buyer sends one purchase until it hears a final answer, going round the web
// processes, as a client behind a load balancer would. Nothing but a final
// answer ends it: a lost connection, 409 in-flight, 429 and 5xx are tried again.
func (f *fleet) buyer(ctx context.Context, name string) (status int, problem string, err error) {
	for try := 0; ; try++ {
		status, problem, err = f.try(ctx, f.urls[try%len(f.urls)], name)
		if err == nil && status < 500 && status != http.StatusTooManyRequests && problem != "urn:firstcome:in-flight" && problem != "urn:firstcome:all-held" {
			return status, problem, nil
		}
		select {
		case <-ctx.Done():
			return status, problem, fmt.Errorf("no final answer: %d %s %w", status, problem, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (f *fleet) try(ctx context.Context, url, name string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/orders", strings.NewReader(`{"sku":"ticket","quantity":1}`))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("X-Buyer", name)
	r.Header.Set("Idempotency-Key", "the-key-of-"+name)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	var body struct {
		Type string `json:"type"`
	}
	_ = json.NewDecoder(res.Body).Decode(&body)
	return res.StatusCode, body.Type, nil
}

// crowd lets n buyers come, some at a time, and calls at with the number of
// those who are served. Every buyer must get a final answer.
func (f *fleet) crowd(n int, at func(served int)) (winners int64) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 3*time.Minute+away())
	defer cancel()
	var wins, served atomic.Int64
	var wg sync.WaitGroup
	queue := make(chan int)
	for range 40 {
		wg.Go(func() {
			for i := range queue {
				status, problem, err := f.buyer(ctx, fmt.Sprintf("buyer-%d", i))
				if err != nil {
					f.t.Errorf("buyer %d: %v", i, err)
				} else if status == http.StatusCreated {
					wins.Add(1)
				} else if problem != "urn:firstcome:sold-out" {
					f.t.Errorf("buyer %d: %d %s", i, status, problem)
				}
				served.Add(1)
			}
		})
	}
	for i := range n {
		queue <- i
		if at != nil {
			at(int(served.Load()))
		}
	}
	close(queue)
	wg.Wait()
	return wins.Load()
}

// books waits until all orders have ended and returns the audit.
func (f *fleet) books(orders int64) app.Audit {
	f.t.Helper()
	var a app.Audit
	for deadline := time.Now().Add(90*time.Second + 2*away()); time.Now().Before(deadline); {
		if res, err := http.Get(f.urls[0] + "/audit"); err == nil { //nolint:noctx // bounded by the loop
			err = json.NewDecoder(res.Body).Decode(&a)
			_ = res.Body.Close()
			if err == nil && a.Settled && a.Events.Written >= orders && a.Stock.Held == 0 {
				return a
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-f.t.Context().Done():
			f.t.Fatal("test ended")
		}
	}
	f.t.Fatalf("not settled: %+v", a)
	return a
}

// agree checks the promise: exactly the stock was sold, once each, and paid.
func (f *fleet) agree(a app.Audit) {
	f.t.Helper()
	if !a.OK || a.Orders.Confirmed != fleetStock || a.Orders.Buyers != fleetStock || a.Payments.Charged != fleetStock ||
		a.Stock.Sold != fleetStock || a.Events.Handled+a.Events.Dropped != a.Events.Written {
		f.t.Fatalf("the books: %+v", a)
	}
}

// kafka starts a Kafka for one fleet: all shops use one topic, and an event of
// another fleet's order would mean nothing here.
func kafka(t *testing.T) func() string {
	return func() string { return testenv.NewKafka(t).URL() }
}

func TestTwoOfEachRoleSellTogether(t *testing.T) {
	for name, broker := range map[string]func() string{
		"kafka":         kafka(t),
		"redis streams": func() string { return "redis" },
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			f := newFleet(t, broker, map[string]int{"web": 2, "relay": 2, "worker": 2})
			winners := f.crowd(500, nil)
			a := f.books(fleetStock)
			f.agree(a)
			if winners != fleetStock {
				t.Errorf("%d buyers were told that they won", winners)
			}
		})
	}
}

func TestTheBooksAgreeAfterEachProcessIsKilledInMidSale(t *testing.T) {
	f := newFleet(t, kafka(t), map[string]int{"web": 2, "relay": 1, "worker": 1})
	kills := map[int]func(){
		20:  f.procs["web-0"].Kill,
		50:  f.procs["relay-0"].Kill,
		80:  f.procs["worker-0"].Kill,
		110: f.redis.Kill,
	}
	restarts := map[int]func(){
		40:  f.procs["web-0"].Restart,
		70:  f.procs["relay-0"].Restart,
		100: f.procs["worker-0"].Restart,
	}
	winners := f.crowd(600, func(served int) {
		for at, kill := range kills {
			if served >= at {
				delete(kills, at)
				kill()
				if at == 110 { // nobody is served without Redis
					f.redis.Restart()
				}
			}
		}
		for at, restart := range restarts {
			if _, waits := kills[at-20]; served >= at && !waits {
				delete(restarts, at)
				restart()
			}
		}
	})
	if len(kills)+len(restarts) > 0 {
		t.Fatalf("%d kills and %d restarts never came", len(kills), len(restarts))
	}
	f.agree(f.books(fleetStock))
	if winners != fleetStock {
		t.Errorf("%d buyers were told that they won", winners)
	}
}

func TestASaleWhoseRedisComesBackEmptyIsRebuiltFromTheLedger(t *testing.T) {
	f := newFleet(t, kafka(t), map[string]int{"web": 2, "relay": 1, "worker": 1})
	emptied := false
	f.crowd(600, func(served int) {
		if served >= fleetStock/2 && !emptied {
			emptied = true
			f.redis.Kill()
			f.redis.RestartEmpty()
		}
	})
	if !emptied {
		t.Fatal("Redis was never emptied")
	}
	a := f.books(fleetStock)
	f.agree(a)
}
