package redisscript

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/coalesce"
)

// Options tunes a [Runner]; zero fields take the defaults.
type Options struct {
	// Timeout bounds the trips of [Runner.Run]; default 5 s. A call of
	// [Runner.RunNow] that is no flight's has as much, and never less than 5 s.
	Timeout time.Duration
	// MaxQueue is how many calls of [Runner.Run] wait for one server; default
	// 65,536.
	MaxQueue int
	// Logger hears when a server is away and when it is back; default
	// slog.Default.
	Logger *slog.Logger
	// Owner names the package whose users are warned of a client that does not
	// obey contexts; none means that they are not.
	Owner string
}

// Runner runs scripts on one client. Goroutines that call at the same time
// share a pipeline; a goroutine alone pays no delay. Calls are gathered by the
// server that they go to, so one that is slow or away harms those alone whose
// keys it has. It is safe for concurrent use, holds no connection of its own and
// needs no closing.
//
// A server that has not answered several times in a row is away: calls are
// refused at once with [ErrAway] and [coalesce.ErrNotSent], while a probe in
// the background looks for it.
type Runner struct {
	client redis.UniversalClient
	opts   Options
	plain  atomic.Bool // the server reads #!lua as a syntax error
	nodes  *nodes      // shared with all Runners on the client
	only   *node       // of a client with one server
	most   int         // tries of a flight

	mu       sync.RWMutex
	batchers map[*node]*coalesce.Batcher[invocation, any]
}

type invocation struct {
	script *Script
	keys   []string
	args   []any
}

// NewRunner returns a Runner on client, which stays the caller's to close.
func NewRunner(client redis.UniversalClient, opts *Options) *Runner {
	r := &Runner{client: client, nodes: nodesOf(client), most: mostTries}
	if !retries(client) {
		r.most = 1
	}
	if opts != nil {
		r.opts = *opts
	}
	r.only = r.single()
	if r.opts.Owner != "" && !obeysContexts(client) {
		r.nodes.warned.Do(func() {
			r.log().Warn("the Redis client has ContextTimeoutEnabled off: a call that hangs keeps its connection for the client's ReadTimeout", "store", r.opts.Owner)
		})
	}
	return r
}

// Run runs the script and returns its reply as go-redis parses it: int64,
// string, []any, or nil. It shares a round trip with concurrent callers, and
// returns when ctx ends; the error then wraps [coalesce.ErrInFlight] where the
// outcome is unknown and [coalesce.ErrNotSent] where nothing was sent. Where a
// connection breaks or stays silent it is sent again on another, so the script
// must be safe to repeat. A client whose retries are off (MaxRetries, on a
// cluster MaxRedirects, is -1) is sent nothing again.
func (r *Runner) Run(ctx context.Context, s *Script, keys []string, args ...any) (any, error) {
	return r.batcher(r.node(keys)).Do(ctx, invocation{script: s, keys: keys, args: args})
}

// RunNow runs the script in a trip of its own, for callers that have batched
// already: with the context of a flight it is repeated as in [Runner.Run], with
// any other it is not.
func (r *Runner) RunNow(ctx context.Context, s *Script, keys []string, args ...any) (any, error) {
	var reply any
	err := r.tries(ctx, r.node(keys), keys, func(ctx context.Context) (err error) {
		reply, err = r.ask(ctx, s, keys, args)
		return err
	})
	return settle(s, reply, err)
}

// ask is one try of one call.
func (r *Runner) ask(ctx context.Context, s *Script, keys []string, args []any) (any, error) {
	reply, err := r.evalSha(ctx, s, keys, args)
	if isNoScript(err) {
		reply, err = r.load(ctx, s, keys, args)
	}
	if err == nil || errors.Is(err, redis.Nil) {
		r.nodes.place()
		return reply, nil
	}
	return nil, err
}

func (r *Runner) fly(ctx context.Context, n *node, batch []*coalesce.Call[invocation, any]) {
	keys := batch[0].Q.keys
	if len(batch) == 1 {
		c := batch[0]
		err := r.tries(ctx, n, keys, func(ctx context.Context) (err error) {
			c.R, err = r.ask(ctx, c.Q.script, c.Q.keys, c.Q.args)
			return err
		})
		c.R, c.Err = settle(c.Q.script, c.R, err)
		return
	}
	todo := batch
	err := r.tries(ctx, n, keys, func(ctx context.Context) error {
		var err error
		todo, err = r.pipeline(ctx, todo)
		return err
	})
	for _, c := range todo { // not answered
		c.R, c.Err = settle(c.Q.script, nil, err)
	}
}

// pipeline sends a batch in one try, and returns those that got no answer and
// the reason.
func (r *Runner) pipeline(ctx context.Context, batch []*coalesce.Call[invocation, any]) ([]*coalesce.Call[invocation, any], error) {
	pipe := r.client.Pipeline()
	cmds := make([]*redis.Cmd, len(batch))
	for i, c := range batch {
		cmds[i] = pipe.EvalSha(ctx, r.form(c.Q.script).sha, c.Q.keys, c.Q.args...)
	}
	_, _ = pipe.Exec(ctx) // each command carries its own error
	var left []*coalesce.Call[invocation, any]
	var cause error
	for i, c := range batch {
		reply, err := cmds[i].Result()
		if isNoScript(err) {
			reply, err = r.reload(ctx, c.Q)
		}
		switch judge(err) {
		case broken, slow:
			left, cause = append(left, c), err
			continue
		case useless:
			cause = cmp.Or(cause, err)
		case heard, nobody:
		}
		if err == nil {
			r.nodes.place()
		}
		c.R, c.Err = settle(c.Q.script, reply, err)
	}
	return left, cause
}

// reload repeats one call that met a server without the script. The first of a
// batch loads it, so those behind it cost one more trip each and no upload.
func (r *Runner) reload(ctx context.Context, q invocation) (any, error) {
	reply, err := r.evalSha(ctx, q.script, q.keys, q.args)
	if isNoScript(err) {
		return r.load(ctx, q.script, q.keys, q.args)
	}
	return reply, err
}

// load sends the source. EVAL rather than SCRIPT LOAD: it reaches the node
// that owns the keys, in the same trip.
func (r *Runner) load(ctx context.Context, s *Script, keys []string, args []any) (any, error) {
	f := r.form(s)
	reply, err := r.eval(ctx, f.source, keys, args)
	if f == s.marked && isMarkUnknown(err) {
		r.plain.Store(true)
		reply, err = r.eval(ctx, s.plain.source, keys, args)
	}
	return reply, err
}

// On a cluster a command alone first asks a random node, which may be frozen,
// for a table of commands. A pipeline does not.

func (r *Runner) evalSha(ctx context.Context, s *Script, keys []string, args []any) (any, error) {
	sha := r.form(s).sha
	if _, ok := r.client.(*redis.ClusterClient); !ok {
		return r.client.EvalSha(ctx, sha, keys, args...).Result()
	}
	pipe := r.client.Pipeline()
	cmd := pipe.EvalSha(ctx, sha, keys, args...)
	_, _ = pipe.Exec(ctx)
	return cmd.Result()
}

func (r *Runner) eval(ctx context.Context, source string, keys []string, args []any) (any, error) {
	if _, ok := r.client.(*redis.ClusterClient); !ok {
		return r.client.Eval(ctx, source, keys, args...).Result()
	}
	pipe := r.client.Pipeline()
	cmd := pipe.Eval(ctx, source, keys, args...)
	_, _ = pipe.Exec(ctx)
	return cmd.Result()
}

func (r *Runner) form(s *Script) form {
	if r.plain.Load() {
		return s.plain
	}
	return s.marked
}

func settle(s *Script, reply any, err error) (any, error) {
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("script %s: %w", s.name, err)
	}
	return reply, nil
}

func isNoScript(err error) bool { return redis.HasErrorPrefix(err, "NOSCRIPT") }

// isMarkUnknown tells a server that knows no #!lua line: Redis before 7 and
// miniredis trip over its first character. Other errors may come from a script
// that has run, which must not run twice.
func isMarkUnknown(err error) bool {
	return redis.HasErrorPrefix(err, "Error compiling script") && strings.Contains(err.Error(), "near '#'")
}
