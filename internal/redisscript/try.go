package redisscript

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/internal/outage"
)

// A connection may be dead without anybody knowing, so no try takes a flight's
// whole time.
const (
	defaultTimeout = 5 * time.Second

	mostTries  = 3
	firstTry   = time.Second            // bounds a try, or twice the slowest answer of late, up to
	longestTry = 2 * time.Second        // this
	suspicion  = 800 * time.Millisecond // silence that counts against the server, or twice the slowest answer of late: one that forks or runs a slow command is back before
	proof      = 100 * time.Millisecond // that of a try which ends earlier; less proves nothing of a server
	jitter     = 10 * time.Millisecond  // most pause before a repeat: tries that ended together don't come back together
)

// attempt is one try of one call or batch on one server.
type attempt struct {
	r       *Runner
	n       *node
	keys    []string
	left    time.Time
	counted atomic.Bool // its failure
}

// tries calls once until the server has answered, the flight's time is over or
// there were enough. Only what got no answer is repeated, and only in a flight.
func (r *Runner) tries(ctx context.Context, n *node, keys []string, once func(ctx context.Context) error) error {
	var last error
	for i := 0; ; i++ {
		if cause := n.refuse(); cause != nil {
			if i == 0 {
				return fmt.Errorf("%w: %w", coalesce.ErrNotSent, cause)
			}
			return last
		}
		a := &attempt{r: r, n: n, keys: keys, left: time.Now()}
		try, flown := coalesce.Try(ctx, n.tryTime(), n.patience(), a)
		var err error
		if flown {
			err = once(try)
			coalesce.Finish(ctx)
		} else {
			err = r.alone(ctx, a, once)
		}
		if !a.settled(err) || !flown || i+1 >= r.most || ctx.Err() != nil {
			return err
		}
		last = err
		time.Sleep(rand.N(jitter))
	}
}

// alone makes the one try of a call that is no flight's.
func (r *Runner) alone(ctx context.Context, a *attempt, once func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, max(r.opts.Timeout, defaultTimeout))
	defer cancel()
	defer time.AfterFunc(a.n.patience(), a.Silent).Stop()
	return once(ctx)
}

func (n *node) tryTime() time.Duration {
	return min(max(firstTry, 2*n.link.Slow()), longestTry)
}

func (n *node) patience() time.Duration {
	return min(max(suspicion, 2*n.link.Slow()), firstTry)
}

// settled tells the breaker how the try ended, and whether to repeat it.
func (a *attempt) settled(err error) (again bool) {
	now := time.Now()
	switch kind := judge(err); {
	case kind == heard:
		a.n.answered(now)
	case kind == nobody:
	case kind == slow && now.Sub(a.left) < min(max(proof, 2*a.n.link.Slow()), firstTry):
		return true
	default:
		a.failed(err)
		return kind != useless
	}
	return false
}

// Silent is called while the try is out and nothing has come back.
func (a *attempt) Silent() { a.failed(errSilent) }

var errSilent = outage.New("no answer in time")

func (a *attempt) failed(cause error) {
	if a.counted.CompareAndSwap(false, true) {
		a.n.failed(a.left, cause, a.r.log(), a.r.probe(a.keys))
	}
}

// ending is how a try ended.
type ending uint8

const (
	heard   ending = iota // the server has answered, if only with a refusal
	nobody                // the caller has left, or the client is closed
	broken                // the connection broke, or there was none
	slow                  // no answer in time
	useless               // the server answers that it can't serve anybody
)

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func judge(err error) ending {
	var answer redis.Error
	switch {
	case err == nil:
		return heard
	case errors.As(err, &answer):
		for _, word := range [...]string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY"} {
			if redis.HasErrorPrefix(answer, word) {
				return useless
			}
		}
		return heard
	case errors.Is(err, redis.ErrClosed), errors.Is(err, context.Canceled):
		return nobody
	case outage.Of(ended, err) == outage.Unavailable:
		return broken
	case outage.Of(context.Background(), err) == outage.Unavailable:
		return slow
	default:
		return nobody // an argument that can't be sent, a hook that refuses
	}
}

// probe returns what asks the server that owns the keys the least there is: a
// script that does nothing, which is refused where ours would be. Where a node
// of a cluster doesn't answer, the client is made to look who has its slots.
func (r *Runner) probe(keys []string) func(context.Context) error {
	client := r.client
	if server := r.server(keys); server != nil {
		client = server
	}
	return func(ctx context.Context) error {
		source := nothing.plain.source
		if !r.plain.Load() {
			source = nothing.marked.source
		}
		err := client.Eval(ctx, source, nil).Err()
		if end := judge(err); end != heard {
			if cluster, ok := r.client.(*redis.ClusterClient); ok {
				// Its slots may have gone to another node, which is asked nothing as
				// long as this one is thought to have them.
				cluster.ReloadState(ctx)
			}
			return fmt.Errorf("probe: %w", errors.Join(err, context.Cause(ctx)))
		}
		return nil
	}
}

var nothing = New("nothing", `return 1`)

func (r *Runner) log() *slog.Logger {
	if r.opts.Logger != nil {
		return r.opts.Logger
	}
	return slog.Default()
}
