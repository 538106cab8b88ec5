package redisscript

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
// on its way. The client's ReadTimeout has to be longer than wait.
func (r *Runner) RunReplicated(ctx context.Context, replicas int, wait time.Duration, s *Script, keys []string, args ...any) (any, int, error) {
	if ctx.Err() != nil {
		return nil, 0, fmt.Errorf("script %s: %w: %w", s.name, coalesce.ErrNotSent, context.Cause(ctx))
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
	for try := 0; ; try++ {
		master, err := c.r.master(ctx, c.keys[0])
		if err != nil {
			c.err = fmt.Errorf("script %s: %w", c.script.name, err)
			return
		}
		reply, acks, err := c.once(ctx, master)
		cluster, ok := c.r.client.(*redis.ClusterClient)
		if !ok || try >= maxMoves || !isMoved(err) {
			c.reply, c.err = settle(c.script, reply, err)
			c.acks = acks
			return
		}
		cluster.ReloadState(ctx)
		select { // a slot on its way is there soon
		case <-time.After(time.Duration(try) * 10 * time.Millisecond):
		case <-ctx.Done():
			c.err = fmt.Errorf("script %s: %w", c.script.name, context.Cause(ctx))
			return
		}
	}
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
