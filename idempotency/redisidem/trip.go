package redisidem

import (
	"context"
	"errors"
	"fmt"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/internal/redisscript"
)

// item is one record's part in a call of a script: its key and its arguments.
type item struct {
	key  string
	args [5]any
}

// trip runs one script for many goroutines. On a single server those that call
// at the same time share one call of the script: that costs a third of a call
// for each in the server, and less in the client. Where keys are spread over
// servers each record needs a call of its own, and those of one server share
// pipelines.
type trip struct {
	runner  *redisscript.Runner
	script  *redisscript.Script
	args    int // of item.args that the script takes
	sharded bool
	batcher *coalesce.Batcher[item, any]
}

// maxBatch bounds how long one call keeps the server: about 0.5 ms.
const maxBatch = 128

func newTrip(runner *redisscript.Runner, script *redisscript.Script, args int, o *Options) *trip {
	t := &trip{runner: runner, script: script, args: args, sharded: o.Sharded}
	t.batcher = coalesce.New(t.fly, &coalesce.Options{
		MaxBatch: maxBatch, Unordered: true, Timeout: o.Timeout, Link: func() *coalesce.Link { return runner.Link() },
	})
	return t
}

// do returns the script's answer for one record.
func (t *trip) do(ctx context.Context, it item) (any, error) {
	var reply any
	var err error
	if t.sharded {
		reply, err = t.runner.Run(ctx, t.script, []string{it.key}, it.args[:t.args]...)
		if err == nil {
			reply, err = only(reply)
		}
	} else {
		reply, err = t.batcher.Do(ctx, it)
	}
	if errors.Is(err, coalesce.ErrNotSent) || errors.Is(err, coalesce.ErrFull) {
		return nil, fmt.Errorf("%w: %w", idempotency.ErrNotSent, err)
	}
	return reply, err
}

func only(reply any) (any, error) {
	answers, ok := reply.([]any)
	if !ok || len(answers) != 1 {
		return nil, errReply
	}
	return answers[0], nil
}

var errReply = errors.New("redisidem: reply has another form")

// fly makes one call of the script for a batch.
func (t *trip) fly(ctx context.Context, batch []*coalesce.Call[item, any]) {
	keys := make([]string, len(batch))
	args := make([]any, 0, len(batch)*t.args)
	for i, c := range batch {
		keys[i] = c.Q.key
		args = append(args, c.Q.args[:t.args]...)
	}
	reply, err := t.runner.RunNow(ctx, t.script, keys, args...)
	answers, ok := reply.([]any)
	if err == nil && (!ok || len(answers) != len(batch)) {
		err = errReply
	}
	for i, c := range batch {
		if err != nil {
			c.Err = err
			continue
		}
		c.R = answers[i]
	}
}
