package main

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// decr is the script one finds everywhere: a counter and the set of those who
// have bought. It remembers no answer, no hold, no expiry, and tells nobody.
var decr = redis.NewScript(`
if tonumber(redis.call('GET', KEYS[1])) <= 0 then return -1 end
if redis.call('SADD', KEYS[2], ARGV[1]) == 0 then return -2 end
redis.call('DECR', KEYS[1])
return 1`)

// stall is the script with its keys, ready to sell.
type stall struct {
	counter
	client *redis.Client
	keys   []string
	buyers []string
	units  int
}

func (s sale) stall(ctx context.Context, a *arena, calls int) (*stall, error) {
	plan, units := s.plan(calls)
	st := &stall{client: a.client(), keys: []string{a.prefix + ":{decr}:stock", a.prefix + ":{decr}:buyers"}, units: units}
	for _, p := range plan {
		st.buyers = append(st.buyers, p.buyer)
	}
	if err := st.client.Set(ctx, st.keys[0], units, 0).Err(); err != nil {
		return nil, err
	}
	return st, decr.Load(ctx, st.client).Err()
}

func (st *stall) answer(n int, err error) error {
	if err != nil {
		return err
	}
	switch n {
	case 1:
		st.sold.Add(1)
		return nil
	case -1, -2:
		return nil
	default:
		return fmt.Errorf("the script answers %d", n)
	}
}

// scriptOnce calls the script in the usual way, a trip for each request.
func (s sale) scriptOnce(ctx context.Context, a *arena, calls int) (*turn, error) {
	st, err := s.stall(ctx, a, calls)
	if err != nil {
		return nil, err
	}
	return &turn{
		call: func(ctx context.Context, i int) error {
			return st.answer(st.client.EvalSha(ctx, decr.Hash(), st.keys, st.buyers[i]).Int())
		},
		check: st.check(st.units),
		close: func() { _ = st.client.Close() },
	}, nil
}

// scriptPiped sends it through go-redis' pipeline that fills itself, in the
// form that obeys contexts.
func (s sale) scriptPiped(ctx context.Context, a *arena, calls int) (*turn, error) {
	st, err := s.stall(ctx, a, calls)
	if err != nil {
		return nil, err
	}
	pipe, err := st.client.AsyncAutoPipeline()
	if err != nil {
		return nil, err
	}
	return &turn{
		call: func(ctx context.Context, i int) error {
			cmd := redis.NewCmd(ctx, "evalsha", decr.Hash(), 2, st.keys[0], st.keys[1], st.buyers[i])
			if err := pipe.Submit(ctx, cmd).WaitContext(ctx); err != nil {
				return err
			}
			return st.answer(cmd.Int())
		},
		check: st.check(st.units),
		close: func() { _ = pipe.Close(); _ = st.client.Close() },
	}, nil
}
