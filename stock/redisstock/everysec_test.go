package redisstock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
)

// A killed process loses little of what it had written, a machine without power
// all that was not synced: up to a second and more of answers.
func TestASaleOnAServerThatSyncsEachSecondSellsEachUnitOnceOverAKill(t *testing.T) {
	t.Parallel()
	for name, lossy := range map[string]bool{"of the process alone": false, "with what was not synced": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			saleOverAKill(t, lossy)
		})
	}
}

func saleOverAKill(t *testing.T, lossy bool) {
	const total, buyers = 400, 6
	server := testenv.NewRedis(t, "appendonly yes", "appendfsync everysec", "auto-aof-rewrite-percentage 0")
	client := func() *redis.Client {
		// A call that was in the air is made anew, with all that was seen since.
		return server.Client(t, withoutRetries, func(o *redis.Options) { o.DialTimeout = time.Second })
	}
	books := newServerLedger(t, nil)
	first := newShop(t, client(), books, nil, func(p *stock.Pool) { p.Total = total })
	second := *first.stand
	second.client = client()
	second.store = mustStore(t, second.client, books, nil)
	tills := []*till{{shop: first}, {shop: &shop{&second, books}}}

	ctx, end := context.WithTimeout(t.Context(), 2*time.Minute) // a unit that is lost is waited for no longer
	sale := &rush{t: t, tills: tills}
	defer sale.Wait()
	defer end()
	sale.begin(ctx, buyers)
	sale.progress("the sale is under way", func(s *till) int64 { return s.sold.Load() }, 10)
	synced := server.Persisted()
	sale.progress("each process has holds that will be lost", func(s *till) int64 { return s.held.Load() }, buyers+1)
	server.Kill()
	if lossy {
		server.RestartCut(synced + 40) // within a script's writes
		for _, s := range tills {
			s.mustBeFenced(s.ask("newcomer").ID)
		}
		if t.Failed() {
			return // there is nothing to rebuild
		}
	} else {
		server.Restart()
	}

	for _, s := range tills {
		s.awake()
		l, err := s.store.Levels(t.Context(), s.pool.SKU)
		fenced := errors.Is(err, stock.ErrFenced)
		if fenced {
			l, err = s.store.Rebuild(t.Context(), s.pool.SKU)
		}
		if err != nil || l.Total != total || l.Over != 0 || l.Free+l.Held+l.Sold != total {
			t.Errorf("the pool, which was fenced %v, has %+v, %v", fenced, l, err)
		}
	}
	sale.Wait()

	sold := tills[0].sold.Load() + tills[1].sold.Load()
	_, mark, err := books.Pool(t.Context(), first.pool.SKU)
	t.Logf("%d were sold, of which the ledger refused %d; the epoch is %d, %v", sold, sale.refused.Load(), mark.Epoch, err)
	if lossy && mark.Epoch != 2 {
		t.Errorf("the pool is in epoch %d, %v; want that it was rebuilt once", mark.Epoch, err)
	}
	if sold > total || sold < total-sale.refused.Load() || lossy && sale.refused.Load() > 0 {
		t.Errorf("%d of %d were sold, and the ledger has refused %d", sold, total, sale.refused.Load())
	}
	if sale.refused.Load() > 0 { // the disk was so slow that something was lost all the same, and seen by one process alone
		first.reconcile()
	}
	for _, s := range tills {
		s.agrees(total-sold, 0, sold)
		s.mustBeClean()
	}
	for ; sold < total; sold++ {
		first.sold("late")
	}
	if err := wants(first.try(first.ask("too late")), stock.ErrSoldOut); err != nil {
		t.Error(err)
	}
	first.agrees(0, 0, total)
}
