package main

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/redisidem"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/ratelimit/redislimit"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// call is the i-th call of a subject.
type call func(ctx context.Context, i int) error

// subject is a call of ours and the usual script that does the least of it. Each
// side gets a client of its own and returns how to end it.
type subject struct {
	name        string
	ours, plain func(ctx context.Context, a *arena) (call, func(), error)
}

func subjects() []subject {
	return []subject{
		{"reserve", ourReserve, plainCall(decr, func(prefix string, i int) ([]string, []any) {
			return []string{prefix + ":{decr}:stock", prefix + ":{decr}:buyers"}, []any{"buyer-" + strconv.Itoa(i)}
		})},
		{"take", ourTake, plainCall(window, func(prefix string, i int) ([]string, []any) {
			return []string{prefix + ":" + strconv.Itoa(i%manyBuyers)}, []any{60_000}
		})},
		{"claim", ourClaim, plainCall(setNX, func(prefix string, i int) ([]string, []any) {
			return []string{prefix + ":" + strconv.Itoa(i)}, []any{60_000}
		})},
	}
}

// The scripts that one finds everywhere for a limit and for a key's first use.
var (
	window = redis.NewScript(`
local n = redis.call('INCR', KEYS[1])
if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return n`)
	setNX = redis.NewScript(`return redis.call('SET', KEYS[1], 'running', 'NX', 'PX', ARGV[1])`)
)

// manyBuyers is how many buckets a limit has.
const manyBuyers = 10_000

// plenty is more units than are asked for.
const plenty = 1 << 40

func plainCall(script *redis.Script, args func(prefix string, i int) ([]string, []any)) func(context.Context, *arena) (call, func(), error) {
	return func(ctx context.Context, a *arena) (call, func(), error) {
		client := a.client()
		end := func() { _ = client.Close() }
		if script == decr {
			if err := client.Set(ctx, a.prefix+":{decr}:stock", plenty, 0).Err(); err != nil {
				return nil, end, err
			}
		}
		return func(ctx context.Context, i int) error {
			keys, values := args(a.prefix, i)
			return client.EvalSha(ctx, script.Hash(), keys, values...).Err()
		}, end, script.Load(ctx, client).Err()
	}
}

func ourReserve(ctx context.Context, a *arena) (call, func(), error) {
	client := a.client()
	end := func() { _ = client.Close() }
	store, err := redisstock.New(client, nil, redisstock.JournalRelayed(0), &redisstock.Options{Prefix: a.prefix})
	if err != nil {
		return nil, end, err
	}
	pool := stock.Pool{SKU: "ticket", Total: plenty, Limit: 1, Hold: time.Hour}
	_, err = store.Open(ctx, pool)
	return func(ctx context.Context, i int) error {
		buyer, claim := "buyer-"+strconv.Itoa(i), [16]byte{1}
		_, err := store.Reserve(ctx, stock.Request{ID: stock.NewID(pool.SKU, buyer, claim), SKU: pool.SKU, Buyer: buyer, Quantity: 1})
		return err
	}, end, err
}

func ourTake(_ context.Context, a *arena) (call, func(), error) {
	client := a.client()
	limiter, err := redislimit.New(client, &redislimit.Options{Prefix: a.prefix})
	limit := ratelimit.Limit{Name: "buyer", Quota: 1_000_000, Window: time.Minute}
	return func(ctx context.Context, i int) error {
		_, err := limiter.Take(ctx, ratelimit.Take{Limit: limit, Key: strconv.Itoa(i % manyBuyers), Cost: 1})
		return err
	}, func() { _ = client.Close() }, err
}

func ourClaim(_ context.Context, a *arena) (call, func(), error) {
	client := a.client()
	store, err := redisidem.New(client, &redisidem.Options{Prefix: a.prefix})
	return func(ctx context.Context, i int) error {
		req := idempotency.ClaimRequest{Terms: idempotency.Terms{Lease: time.Minute, Retention: time.Minute}}
		strconv.AppendInt(req.ID[:0], int64(i), 36) // in place: 13 characters at most
		strconv.AppendInt(req.Token[:0], int64(i), 36)
		_, err := store.Claim(ctx, req)
		return err
	}, func() { _ = client.Close() }, err
}
