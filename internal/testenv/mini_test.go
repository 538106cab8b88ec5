package testenv_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
)

func TestEachRedis_RunsOnBoth(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		key := testenv.Name(t)
		if n, err := client.Incr(t.Context(), key).Result(); err != nil || n != 1 {
			t.Errorf("INCR = %d, %v", n, err)
		}
	})
}

func TestBubble_KeysExpireByTheBubblesClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := testenv.Bubble(t)
		if err := client.Set(t.Context(), "a", 1, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		if err := client.Get(t.Context(), "a").Err(); err != nil {
			t.Errorf("a second too early: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := client.Get(t.Context(), "a").Err(); !errors.Is(err, redis.Nil) {
			t.Errorf("an hour later: %v", err)
		}
	})
}

func TestBubble_LongPipelinesDoNotBlock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := testenv.Bubble(t)
		commands, err := client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for range 5000 {
				p.Incr(t.Context(), "a")
			}
			return nil
		})
		if err != nil || len(commands) != 5000 {
			t.Errorf("%d answers, %v", len(commands), err)
		}
	})
}
