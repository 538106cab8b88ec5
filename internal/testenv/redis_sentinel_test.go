package testenv_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
)

func TestRedisSentinel_ClientWritesAgainAfterThePrimaryWasKilled(t *testing.T) {
	t.Parallel()
	pair := testenv.NewRedisPair(t)
	sentinel := testenv.NewRedisSentinel(t, pair)
	client := sentinel.Client(t)
	if err := client.Set(t.Context(), "a", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	pair.WaitInSync(t)

	pair.Primary.Kill()
	sentinel.WaitPrimary(t, pair.Replica)
	var n int64
	within(t, time.Minute, func() error {
		var err error
		n, err = client.Incr(t.Context(), "a").Result()
		return err
	})
	if n < 2 {
		t.Errorf("a = %d; the promoted replica had lost it", n)
	}
	if err := pair.Replica.Client(t).Get(t.Context(), "a").Err(); err != nil {
		t.Errorf("the client wrote elsewhere: %v", err)
	}

	pair.Primary.Restart()
	pair.WaitInSync(t)
	if err := pair.Primary.Client(t).Set(t.Context(), "a", 0, 0).Err(); !redis.IsReadOnlyError(err) {
		t.Errorf("a write to the old primary: %v", err)
	}
}

func TestRedisSentinel_URLLeadsToThePrimary(t *testing.T) {
	t.Parallel()
	pair := testenv.NewRedisPair(t)
	sentinel := testenv.NewRedisSentinel(t, pair)
	sentinel.WaitPrimary(t, pair.Primary)
	options, err := redis.ParseFailoverURL(sentinel.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewFailoverClient(options)
	defer func() { _ = client.Close() }()
	if err := client.Set(t.Context(), "a", 1, 0).Err(); err != nil {
		t.Error(err)
	}
	if err := pair.Primary.Client(t).Get(t.Context(), "a").Err(); err != nil {
		t.Error(err)
	}
}

// within repeats try until it succeeds.
func within(t *testing.T, limit time.Duration, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", limit, err)
		}
	}
}
