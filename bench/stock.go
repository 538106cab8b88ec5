package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// stockContests compare Reserve, with the limit and the journal on, with the
// script that sells with DECR and SADD and is called once per request.
func stockContests() []contest {
	once, piped := sale{}.scriptOnce, sale{}.scriptPiped
	return []contest{
		{"reserve, 1 caller", 1, 10_000, sale{}.reserve, once},
		{"reserve, 64 callers", 64, 50_000, sale{}.reserve, once},
		{"reserve, 1,000 callers", 1000, 100_000, sale{}.reserve, once},
		{"reserve, 1,000, async pipeline", 1000, 100_000, sale{}.reserve, piped},
		{"mixed, 1,000 callers", 1000, 100_000, sale{mixed: true}.reserve, sale{mixed: true}.scriptOnce},
		{"mixed, 1,000, async pipeline", 1000, 100_000, sale{mixed: true}.reserve, sale{mixed: true}.scriptPiped},
		{"mixed, 1,000, losers from memory", 1000, 100_000, sale{mixed: true, first: true}.reserve, sale{mixed: true}.scriptOnce},
		// At 2^20 fields Redis doubles the pool's hash table: before that, and across it.
		{"at 1,000,000 holds, peer at 1,000", 1000, 40_000, sale{holds: 1_000_000}.reserve, sale{holds: 1000}.reserve},
		{"to 1,100,000 holds, peer at 1,000", 1000, 100_000, sale{holds: 1_000_000}.reserve, sale{holds: 1000}.reserve},
	}
}

// sale is a load: all buyers new and stock for all; or mixed, of which 35 % win
// (5 % a unit whose hold has just ended), 10 % repeat an ID, 5 % are at their
// limit, and 50 % come when all is gone.
type sale struct {
	mixed bool
	first bool // the losers say that it is their first attempt, which may be answered from memory
	holds int  // live ones that stand already
}

// lasting is how long a hold lasts in a mixed sale: longer than the sale takes,
// and short enough to wait for the end of those that are taken over.
const lasting = 3 * time.Second

// purchase is one call of a sale.
type purchase struct {
	buyer  string
	claim  [16]byte
	first  bool
	refuse bool // it is one that gets nothing
}

// plan returns the calls in their order and how many units there are.
func (s sale) plan(calls int) (all []purchase, units int) {
	random := rand.New(rand.NewPCG(1, 2))
	fresh := func() purchase {
		p := purchase{buyer: "buyer-" + strconv.FormatUint(random.Uint64(), 36)}
		binary.LittleEndian.PutUint64(p.claim[:8], random.Uint64())
		binary.LittleEndian.PutUint64(p.claim[8:], random.Uint64()|1)
		return p
	}
	all = make([]purchase, calls)
	for i := range all {
		switch kind := random.IntN(100); {
		case !s.mixed || i < calls/20 || i < calls/2 && kind < 70:
			all[i] = fresh()
			units++
		case i < calls/2 && kind < 90:
			all[i] = all[random.IntN(i-calls/40)]
		case i < calls/2:
			old := all[random.IntN(i-calls/40)]
			all[i] = fresh()
			all[i].buyer, all[i].refuse = old.buyer, true
		default:
			all[i] = fresh()
			all[i].first, all[i].refuse = s.first, true
		}
	}
	return all, units
}

func (s sale) reserve(ctx context.Context, a *arena, calls int) (*turn, error) {
	plan, units := s.plan(calls)
	client := a.client()
	store, err := redisstock.New(client, nil, redisstock.JournalRelayed(0), &redisstock.Options{Prefix: a.prefix})
	if err != nil {
		return nil, err
	}
	pool := stock.Pool{SKU: "ticket", Total: int64(units + s.holds), Limit: 1, Hold: time.Hour}
	if s.mixed {
		pool.Hold = lasting
	}
	if _, err := store.Open(ctx, pool); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx, store, pool, calls); err != nil {
		return nil, err
	}
	requests := make([]stock.Request, calls)
	for i, p := range plan {
		requests[i] = stock.Request{ID: stock.NewID(pool.SKU, p.buyer, p.claim), SKU: pool.SKU, Buyer: p.buyer, Quantity: 1, First: p.first}
	}
	return &turn{
		call: func(ctx context.Context, i int) error {
			switch _, err := store.Reserve(ctx, requests[i]); {
			case err == nil, errors.Is(err, stock.ErrAllHeld), errors.Is(err, stock.ErrLimit):
				return nil
			default:
				return err
			}
		},
		check: func(ctx context.Context) error {
			l, err := store.Levels(ctx, pool.SKU)
			if err == nil && (l.Free != 0 || l.Held != pool.Total) {
				err = fmt.Errorf("levels are %+v, want %d held", l, pool.Total)
			}
			return err
		},
		close: func() { _ = client.Close() },
	}, nil
}

// prepare makes the holds that stand when the sale begins: live ones, or those
// that have ended by then and will be taken over.
func (s sale) prepare(ctx context.Context, store *redisstock.Store, pool stock.Pool, calls int) error {
	holds := s.holds
	if s.mixed {
		holds = calls / 20
	}
	err := spread(holds, func(i int) error {
		buyer := "before-" + strconv.Itoa(i)
		r := stock.Request{ID: stock.NewID(pool.SKU, buyer, [16]byte{1}), SKU: pool.SKU, Buyer: buyer, Quantity: 1}
		_, err := store.Reserve(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	if s.mixed {
		time.Sleep(lasting)
	}
	return nil
}

// counter counts answers of the script, which has no levels to check.
type counter struct{ sold atomic.Int64 }

func (c *counter) check(units int) func(context.Context) error {
	return func(context.Context) error {
		if n := c.sold.Load(); n != int64(units) {
			return fmt.Errorf("the script sold %d, want %d", n, units)
		}
		return nil
	}
}
