package redisscript

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/coalesce"
)

// RunReplicated runs the script and then waits, at most for the given time,
// until so many replicas have what it wrote. It returns how many had it. Both
// commands go down one connection to the master of the keys, since WAIT speaks
// of what its own connection wrote; it is used by nobody else meanwhile. It
// returns when ctx ends, whatever the client makes of contexts; the error then
// wraps [coalesce.ErrInFlight], or [coalesce.ErrNotSent] where nothing was sent.
//
// A script that wrote nothing leaves WAIT nothing to count, and it answers with
// all replicas: such a script has to write something first. In a cluster the
// call follows a slot to its new node, and waits a second or so for one that is
// on its way. The client's ReadTimeout has to be longer than wait. Where a
// connection breaks or stays silent the script is sent again on another, so it
// must be safe to repeat.
func (r *Runner) RunReplicated(ctx context.Context, replicas int, wait time.Duration, s *Script, keys []string, args ...any) (any, int, error) {
	if ctx.Err() != nil {
		return nil, 0, fmt.Errorf("script %s: %w: %w", s.name, coalesce.ErrNotSent, context.Cause(ctx))
	}
	if away := r.node(keys).refuse(); away != nil {
		return nil, 0, fmt.Errorf("script %s: %w: %w", s.name, coalesce.ErrNotSent, away)
	}
	c := &replicated{r: r, script: s, keys: keys, args: owned(args), replicas: replicas, wait: wait, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.run(ctx)
	}()
	select {
	case <-c.done:
		var answer redis.Error
		if why := over(ctx); why != nil && c.err != nil && !errors.As(c.err, &answer) {
			// The connection has the context's deadline too, and may be first.
			return nil, 0, fmt.Errorf("%w: %w: %w", coalesce.ErrInFlight, why, c.err)
		}
		return c.reply, c.acks, c.err
	case <-ctx.Done():
		return nil, 0, fmt.Errorf("script %s: %w: %w", s.name, coalesce.ErrInFlight, context.Cause(ctx))
	}
}

// over is why the context has ended, or will as soon as its timer fires; nil
// where it has not.
func over(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ctx.Err() == nil && ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return context.Cause(ctx)
}

// owned is args that the caller can't change any more: a call that is given up
// may be sent again by the client, while the caller uses its bytes for the next.
func owned(args []any) []any {
	args = slices.Clone(args)
	for i, arg := range args {
		if b, ok := arg.([]byte); ok {
			args[i] = bytes.Clone(b)
		}
	}
	return args
}

// replicated is one call and, when it is done, its answer.
type replicated struct {
	r        *Runner
	script   *Script
	keys     []string
	args     []any
	replicas int
	wait     time.Duration

	done  chan struct{}
	reply any
	acks  int
	err   error
}

func (c *replicated) run(ctx context.Context) {
	failures := 0
	for moves := 0; ; moves++ {
		reply, acks, again, err := c.try(ctx)
		cluster, isCluster := c.r.client.(*redis.ClusterClient)
		moved := isCluster && moves < maxMoves && isMoved(err)
		failures++
		if !moved && (!again || failures >= c.r.most || ctx.Err() != nil) {
			c.reply, c.err = settle(c.script, reply, err)
			c.acks = acks
			return
		}
		pause := rand.N(jitter)
		if moved { // a slot on its way is there soon
			failures--
			cluster.ReloadState(ctx)
			pause = time.Duration(moves) * 10 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			c.err = fmt.Errorf("script %s: %w", c.script.name, context.Cause(ctx))
			return
		}
	}
}

// try asks once, in a part of the time: the connection may be dead. again says
// that it got no answer.
func (c *replicated) try(ctx context.Context) (reply any, acks int, again bool, err error) {
	n := c.r.node(c.keys)
	a := &attempt{r: c.r, n: n, keys: c.keys, left: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, n.tryTime()+c.wait)
	defer cancel()
	defer time.AfterFunc(n.patience()+c.wait, a.Silent).Stop()
	master, err := c.r.master(ctx, c.keys[0])
	if err == nil {
		reply, acks, err = c.once(ctx, master)
	}
	return reply, acks, a.settled(err), err
}

// maxMoves bounds how often a call follows a slot that moves.
const maxMoves = 16

func isMoved(err error) bool {
	return redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK") || redis.HasErrorPrefix(err, "TRYAGAIN")
}

// once asks one server, which is given the script where it does not have it.
func (c *replicated) once(ctx context.Context, master *redis.Client) (any, int, error) {
	f := c.r.form(c.script)
	reply, acks, err := c.pair(ctx, master, func(p redis.Pipeliner) *redis.Cmd { return p.EvalSha(ctx, f.sha, c.keys, c.args...) })
	if !isNoScript(err) {
		return reply, acks, err
	}
	eval := func(source string) (any, int, error) {
		return c.pair(ctx, master, func(p redis.Pipeliner) *redis.Cmd { return p.Eval(ctx, source, c.keys, c.args...) })
	}
	reply, acks, err = eval(f.source)
	if f == c.script.marked && isMarkUnknown(err) {
		c.r.plain.Store(true)
		reply, acks, err = eval(c.script.plain.source)
	}
	return reply, acks, err
}

// pair sends a script and WAIT in one pipeline, which has a connection to itself.
func (c *replicated) pair(ctx context.Context, master *redis.Client, script func(p redis.Pipeliner) *redis.Cmd) (any, int, error) {
	pipe := master.Pipeline()
	cmd := script(pipe)
	acks := pipe.Do(ctx, "WAIT", c.replicas, c.wait.Milliseconds())
	_, _ = pipe.Exec(ctx) // each command carries its own error
	reply, err := cmd.Result()
	n, waitErr := acks.Int()
	if waitErr != nil {
		n = 0 // what was written stands; nobody knows on how many
	}
	return reply, n, err
}

var errClient = errors.New("redisscript: WAIT needs a *redis.Client or a *redis.ClusterClient")

// CanReplicate reports whether [Runner.RunReplicated] works with a client.
func CanReplicate(client redis.UniversalClient) bool {
	switch client.(type) {
	case *redis.Client, *redis.ClusterClient:
		return true
	default:
		return false
	}
}

// CanWait reports whether a client listens for longer than wait.
func CanWait(client redis.UniversalClient, wait time.Duration) bool {
	limit := time.Duration(-1) // none
	switch c := client.(type) {
	case *redis.Client:
		limit = c.Options().ReadTimeout
	case *redis.ClusterClient:
		limit = c.Options().ReadTimeout
	}
	return limit <= 0 || limit > wait
}

// master returns the client of the server that owns the key.
func (r *Runner) master(ctx context.Context, key string) (*redis.Client, error) {
	switch c := r.client.(type) {
	case *redis.Client:
		return c, nil
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, key)
	default:
		return nil, errClient
	}
}
