package redislimit

import (
	"context"
	_ "embed"
	"errors"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/internal/redisscript"
	"github.com/firstcome/firstcome/ratelimit"
)

var (
	//go:embed scripts/take.lua
	takeSource string

	takeScript = redisscript.New("ratelimit.take", takeSource)
)

// charge is one take as take.lua has it.
type charge struct {
	key      string
	interval float64
	capacity int64
	cost     int64
}

// attempt is one decision: what it asks for, and what was answered.
type attempt struct {
	charges []charge
}

// verdict is the answer to one attempt.
type verdict struct {
	now     int64
	allowed bool
	numbers []int64 // 3 for each charge: remaining, until drained, until it fits
}

// trip decides for many goroutines in one call of the script: those that call
// at the same time share it. A bucket that all of them name is read and written
// once.
type trip struct {
	runner  *redisscript.Runner
	sharded bool
	batcher *coalesce.Batcher[attempt, verdict]
}

// maxBatch bounds how long one call keeps the server: about 0.5 ms.
const maxBatch = 128

func newTrip(runner *redisscript.Runner, o *Options) *trip {
	t := &trip{runner: runner, sharded: o.Sharded}
	t.batcher = coalesce.New(t.fly, &coalesce.Options{
		MaxBatch: maxBatch, Unordered: true, Timeout: o.Timeout, Link: func() *coalesce.Link { return runner.Link() },
	})
	return t
}

func (t *trip) do(ctx context.Context, a attempt) (verdict, error) {
	if !t.sharded {
		return t.batcher.Do(ctx, a)
	}
	// Buckets live on different servers: a script for each, in a pipeline for each server.
	var c call
	c.add(a)
	reply, err := t.runner.Run(ctx, takeScript, c.keys, c.args...)
	if err != nil {
		return verdict{}, err
	}
	numbers, err := integers(reply)
	if err != nil {
		return verdict{}, err
	}
	_, v, err := next(numbers, 1, len(a.charges))
	return v, err
}

// call gathers the arguments of one call of the script.
type call struct {
	keys  []string
	args  []any
	index map[string]int
}

func (c *call) add(a attempt) {
	c.args = append(c.args, len(a.charges))
	for i := range a.charges {
		ch := &a.charges[i]
		k, known := c.index[ch.key]
		if !known {
			c.keys = append(c.keys, ch.key)
			k = len(c.keys)
			if c.index == nil {
				c.index = make(map[string]int)
			}
			c.index[ch.key] = k
		}
		c.args = append(c.args, k, ch.interval, ch.capacity, ch.cost)
	}
}

func (t *trip) fly(ctx context.Context, batch []*coalesce.Call[attempt, verdict]) {
	c := call{keys: make([]string, 0, len(batch)+1), args: make([]any, 0, 5*len(batch))}
	for _, b := range batch {
		c.add(b.Q)
	}
	reply, err := t.runner.RunNow(ctx, takeScript, c.keys, c.args...)
	var numbers []int64
	if err == nil {
		numbers, err = integers(reply)
	}
	at := 1
	for _, b := range batch {
		if err != nil {
			b.Err = err
			continue
		}
		at, b.R, b.Err = next(numbers, at, len(b.Q.charges))
	}
}

var errReply = errors.New("redislimit: reply has another form")

// integers reads a flat reply, which starts with the time.
func integers(reply any) ([]int64, error) {
	fields, ok := reply.([]any)
	if !ok || len(fields) == 0 {
		return nil, errReply
	}
	numbers := make([]int64, len(fields))
	for i, f := range fields {
		if numbers[i], ok = f.(int64); !ok {
			return nil, errReply
		}
	}
	return numbers, nil
}

// next reads one attempt's part from at on.
func next(numbers []int64, at, charges int) (int, verdict, error) {
	end := at + 1 + 3*charges
	if end > len(numbers) {
		return at, verdict{}, errReply
	}
	return end, verdict{now: numbers[0], allowed: numbers[at] == 1, numbers: numbers[at+1 : end : end]}, nil
}

// epoch is 2024-01-01 in microseconds; the scripts count from it.
const epoch = 1704067200 * 1_000_000

// charges lists what the asked limits of d have to say. Where the answer is no
// for ever it only looks.
func (l *Limiter) charges(d *ratelimit.Decision, asked []int) []charge {
	list := make([]charge, len(asked))
	for n, i := range asked {
		t := &d.Statuses[i].Take
		list[n] = charge{key: l.bucketKey(t), interval: t.Limit.Interval(), capacity: t.Limit.Capacity(), cost: t.Cost}
		if d.Permanent {
			list[n].cost = 0
		}
	}
	return list
}
