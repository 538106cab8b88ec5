package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// arena is the server on which both sides run.
type arena struct {
	options *redis.Options
	admin   *redis.Client
	prefix  string // of all keys of this run
	version string
}

func newArena(ctx context.Context, options *redis.Options) (*arena, error) {
	options.ContextTimeoutEnabled = true
	a := &arena{options: options, admin: redis.NewClient(options), prefix: "bench-" + strings.ToLower(rand.Text()[:8])}
	info, err := a.admin.InfoMap(ctx, "server").Result()
	if err != nil {
		return nil, fmt.Errorf("reach Redis: %w", err)
	}
	a.version = "Redis " + info["Server"]["redis_version"]
	return a, nil
}

func (a *arena) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a.sweep(ctx)
	_ = a.admin.Close()
}

// client makes a client for one turn. Both sides have the same.
func (a *arena) client() *redis.Client {
	options := *a.options
	return redis.NewClient(&options)
}

// sweep removes the keys of a turn, now and not in the background, where it
// would burden the next turn.
func (a *arena) sweep(ctx context.Context) {
	for cursor := uint64(0); ; {
		keys, next, err := a.admin.Scan(ctx, cursor, a.prefix+"*", 1000).Result()
		if err != nil {
			return
		}
		if len(keys) > 0 {
			_ = a.admin.Del(ctx, keys...).Err()
		}
		if cursor = next; cursor == 0 {
			return
		}
	}
}

// behind is the same arena as clients see it at another address.
func (a *arena) behind(addr string) *arena {
	there, options := *a, *a.options
	options.Addr = addr
	there.options = &options
	return &there
}

// ping is the median time of a PING.
func (a *arena) ping(ctx context.Context) (time.Duration, error) {
	client := a.client()
	defer func() { _ = client.Close() }()
	took := make([]time.Duration, 50)
	for i := range took {
		begun := time.Now()
		if err := client.Ping(ctx).Err(); err != nil {
			return 0, err
		}
		took[i] = time.Since(begun)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// cpu is the processor time that this process and Redis have used so far. It
// tells more than the clock where the machine has other work to do.
func (a *arena) cpu(ctx context.Context) (time.Duration, error) {
	info, err := a.admin.InfoMap(ctx, "cpu").Result()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, name := range []string{"used_cpu_sys", "used_cpu_user"} {
		seconds, err := strconv.ParseFloat(info["CPU"][name], 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		sum += time.Duration(seconds * float64(time.Second))
	}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return 0, err
	}
	return sum + time.Duration(own.Utime.Nano()+own.Stime.Nano()), nil
}

func (a *arena) resetStats(ctx context.Context) error {
	return a.admin.ConfigResetStat(ctx).Err()
}

// scriptMicros is the CPU time that Redis has spent in scripts since the last
// reset.
func (a *arena) scriptMicros(ctx context.Context) (float64, error) {
	info, err := a.admin.InfoMap(ctx, "commandstats").Result()
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, name := range []string{"cmdstat_evalsha", "cmdstat_eval"} {
		for pair := range strings.SplitSeq(info["Commandstats"][name], ",") {
			if text, ok := strings.CutPrefix(pair, "usec="); ok {
				usec, err := strconv.ParseFloat(text, 64)
				if err != nil {
					return 0, err
				}
				sum += usec
			}
		}
	}
	return sum, nil
}
