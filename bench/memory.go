package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// memory tells what a reservation costs Redis, in each of its states, with all
// keys that it stands in. Buyers are all different: one who has several costs
// less for each.
func memory(ctx context.Context, w io.Writer, a *arena, scale float64) error {
	n := max(int(200_000*scale), 1000)
	client := a.client()
	defer func() { _ = client.Close() }()
	defer a.sweep(ctx)
	store, err := redisstock.New(client, nil, redisstock.JournalOff, &redisstock.Options{Prefix: a.prefix})
	if err != nil {
		return err
	}
	pool := stock.Pool{SKU: "memory", Total: int64(n)}
	if _, err := store.Open(ctx, pool); err != nil {
		return err
	}
	id := func(i int) stock.ID { return stock.NewID(pool.SKU, "buyer-"+strconv.Itoa(i), [16]byte{1}) }
	empty, err := a.used(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nMemory of Redis per reservation, %d of them, journal off:\n", n)
	for _, step := range []struct {
		name string
		do   func(i int) error
	}{
		{"live hold", func(i int) error {
			r := stock.Request{ID: id(i), SKU: pool.SKU, Buyer: "buyer-" + strconv.Itoa(i), Quantity: 1}
			_, err := store.Reserve(ctx, r)
			return err
		}},
		{"half of them sold, half cancelled", func(i int) error {
			var err error
			if i%2 == 0 {
				_, err = store.Confirm(ctx, id(i))
			} else {
				_, err = store.Cancel(ctx, id(i))
			}
			return err
		}},
	} {
		if err := spread(n, step.do); err != nil {
			return err
		}
		used, err := a.used(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "  %-34s %4.0f bytes\n", step.name, float64(used-empty)/float64(n))
	}
	return nil
}

// spread calls do for 0 to n-1 from many goroutines.
func spread(n int, do func(i int) error) error {
	const hands = 500
	failed := make(chan error, hands)
	var all sync.WaitGroup
	for hand := range hands {
		all.Go(func() {
			for i := hand; i < n; i += hands {
				if err := do(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// used is the memory of Redis' data.
func (a *arena) used(ctx context.Context) (int64, error) {
	info, err := a.admin.InfoMap(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(info["Memory"]["used_memory_dataset"]), 10, 64)
}
