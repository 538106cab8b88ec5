package redisscript

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/coalesce"
)

// Options tunes a [Runner]; nil takes the defaults of [coalesce.Options].
type Options = coalesce.Options

// Runner runs scripts on one client. Goroutines that call at the same time
// share a pipeline; a goroutine alone pays no delay. It is safe for concurrent
// use, holds no connection of its own and needs no closing.
type Runner struct {
	client  redis.UniversalClient
	plain   atomic.Bool // the server reads #!lua as a syntax error
	batcher *coalesce.Batcher[invocation, any]
}

type invocation struct {
	script *Script
	keys   []string
	args   []any
}

// NewRunner returns a Runner on client, which stays the caller's to close.
func NewRunner(client redis.UniversalClient, opts *Options) *Runner {
	r := &Runner{client: client}
	r.batcher = coalesce.New(r.fly, opts)
	return r
}

// Run runs the script and returns its reply as go-redis parses it: int64,
// string, []any, or nil. It shares a round trip with concurrent callers, and
// returns when ctx ends; the error then wraps [coalesce.ErrInFlight] where the
// outcome is unknown and [coalesce.ErrNotSent] where nothing was sent.
func (r *Runner) Run(ctx context.Context, s *Script, keys []string, args ...any) (any, error) {
	return r.batcher.Do(ctx, invocation{script: s, keys: keys, args: args})
}

// RunNow runs the script in a trip of its own, for callers that have batched
// already.
func (r *Runner) RunNow(ctx context.Context, s *Script, keys []string, args ...any) (any, error) {
	reply, err := r.client.EvalSha(ctx, r.form(s).sha, keys, args...).Result()
	if isNoScript(err) {
		reply, err = r.load(ctx, s, keys, args)
	}
	return settle(s, reply, err)
}

func (r *Runner) fly(ctx context.Context, batch []*coalesce.Call[invocation, any]) {
	if len(batch) == 1 {
		c := batch[0]
		c.R, c.Err = r.RunNow(ctx, c.Q.script, c.Q.keys, c.Q.args...)
		return
	}
	pipe := r.client.Pipeline()
	cmds := make([]*redis.Cmd, len(batch))
	for i, c := range batch {
		cmds[i] = pipe.EvalSha(ctx, r.form(c.Q.script).sha, c.Q.keys, c.Q.args...)
	}
	_, _ = pipe.Exec(ctx) // each command carries its own error
	for i, c := range batch {
		reply, err := cmds[i].Result()
		if isNoScript(err) {
			reply, err = r.reload(ctx, c.Q)
		}
		c.R, c.Err = settle(c.Q.script, reply, err)
	}
}

// reload repeats one call that met a server without the script. The first of a
// batch loads it, so those behind it cost one more trip each and no upload.
func (r *Runner) reload(ctx context.Context, q invocation) (any, error) {
	reply, err := r.client.EvalSha(ctx, r.form(q.script).sha, q.keys, q.args...).Result()
	if isNoScript(err) {
		return r.load(ctx, q.script, q.keys, q.args)
	}
	return reply, err
}

// load sends the source. EVAL rather than SCRIPT LOAD: it reaches the node
// that owns the keys, in the same trip.
func (r *Runner) load(ctx context.Context, s *Script, keys []string, args []any) (any, error) {
	f := r.form(s)
	reply, err := r.client.Eval(ctx, f.source, keys, args...).Result()
	if f == s.marked && isMarkUnknown(err) {
		r.plain.Store(true)
		reply, err = r.client.Eval(ctx, s.plain.source, keys, args...).Result()
	}
	return reply, err
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
