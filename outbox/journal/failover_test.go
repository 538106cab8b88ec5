package journal_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox/journal"
	"github.com/firstcome/firstcome/outbox/outboxtest"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// couple is a shop on a primary with a replica.
type couple struct {
	*testenv.RedisFailover
	*shop
}

func newCouple(t *testing.T, books stock.Ledger) *couple {
	t.Helper()
	c := &couple{RedisFailover: testenv.NewRedisFailover(t)}
	c.shop = newShop(t, c.Client, books, 0)
	return c
}

// clockAhead makes the journal give stream IDs as if the server's clock had once
// been an hour ahead.
func (c *couple) clockAhead(t *testing.T) {
	t.Helper()
	key := fmt.Sprintf("fc:stock:1:{%x}:journal", stock.NewID(c.pool.SKU, "", [16]byte{}).PoolPart())
	last := fmt.Sprint(time.Now().Add(time.Hour).UnixMilli(), "-0")
	ok(t, c.Client.Do(t.Context(), "XSETID", key, last).Err())
}

// overtaken lets a relay publish four events of which three are then lost in a
// failover, and trim only when the promoted server has events that the relay has
// not seen. The lost ones are written after cut, the new ones by after. It returns
// what was published in the end.
func (c *couple) overtaken(t *testing.T, cut, after func()) []outboxtest.Sent {
	t.Helper()
	begun, told := make(chan struct{}), make(chan struct{})
	begin, tell := sync.OnceFunc(func() { close(begun) }), sync.OnceFunc(func() { close(told) })
	r := outboxtest.NewRecorder(func(string, *message.Message) error {
		begin()
		<-told
		return nil
	})
	write := func(from, to int) {
		for i := from; i < to; i++ {
			_, err := c.reserve(fmt.Sprint("old ", i))
			ok(t, err)
		}
	}
	write(0, 1)
	c.FailOver(t, func() {
		cut()
		write(1, 4)
		start(t, c.reader(), outboxtest.BatchRecorder{Recorder: r}, journal.These(c.pool.SKU), journal.Options{PublishTimeout: time.Minute})
		t.Cleanup(tell) // whatever happens, the relay need not wait for it
		<-begun
	})
	after()
	tell()
	c.relayed()
	return r.Sent()
}

func TestRedis_AFailoverBeforeTheTrimLosesNoEventOfTheNewEpoch(t *testing.T) {
	t.Parallel()
	nothing := func(*couple, *testing.T) {}
	for name, ahead := range map[string]struct{ both, lost func(*couple, *testing.T) }{
		"ThoughTheirStreamIDsAreLower":       {nothing, (*couple).clockAhead},
		"ThoughTheirStreamIDsAreThoseOfLost": {(*couple).clockAhead, nothing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, want := newCouple(t, ledger(t)), 0
			ahead.both(c, t)
			sent := c.overtaken(t, func() { ahead.lost(c, t) }, func() {
				_, err := c.store.Rebuild(t.Context(), c.pool.SKU)
				ok(t, err)
				for i := range 3 {
					want += c.sale(10*i, 10)
				}
			})
			events := firsts(t, sent)
			whole(t, events, 1, 4)
			whole(t, events, 2, want)
			if len(sent) != 4+want {
				t.Errorf("%d messages for %d events; what the promoted server still had is trimmed there, and not told again", len(sent), 4+want)
			}
		})
	}
}

func TestRedis_WhatHasTheNumbersOfALostEventIsPublishedAndNotTrimmedForIt(t *testing.T) {
	t.Parallel()
	c, fresh := newCouple(t, nil), map[string]bool{}
	c.clockAhead(t) // so that even the stream IDs come again
	sent := c.overtaken(t, func() {}, func() {
		store, err := redisstock.New(c.Client, nil, redisstock.JournalRelayed(0), nil) // a process that knows of no loss
		ok(t, err)
		for i := range 3 {
			hold, err := (&shop{t, store, c.pool}).reserve(fmt.Sprint("new ", i))
			ok(t, err)
			fresh[hold.ID.String()] = true
		}
	})
	times := map[int64]int{}
	for _, s := range sent {
		e := decode(t, s.Payload)
		delete(fresh, e.ID)
		times[e.Seq]++
	}
	if len(fresh) > 0 {
		t.Errorf("%d events were never published", len(fresh))
	}
	if times[1] != 1 || times[2] != 2 || times[4] != 2 {
		t.Errorf("published under each number: %v; want the first once, the others twice", times)
	}
}
