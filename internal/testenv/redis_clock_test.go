package testenv_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
)

// skew is how far the server's clock is ahead, by its scripts and by TIME.
func skew(t *testing.T, client *redis.Client) time.Duration {
	t.Helper()
	now, err := client.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := client.Eval(t.Context(), "return redis.call('TIME')[1]", nil).Int64()
	if err != nil {
		t.Fatal(err)
	}
	if apart := time.Unix(seconds, 0).Sub(now).Abs(); apart > time.Minute {
		t.Errorf("a script's clock is %v from TIME's", apart)
	}
	return time.Until(now).Round(10 * time.Minute)
}

func TestRedisClock_JumpsBothWaysUnderALiveServerAndStaysOverARestart(t *testing.T) {
	t.Parallel()
	server, clock := testenv.NewRedisClock(t, "appendonly yes")
	client := server.Client(t)
	if got := skew(t, client); got != 0 {
		t.Errorf("the clock starts %v ahead", got)
	}
	for _, want := range []time.Duration{time.Hour, -time.Hour, 0, 24 * time.Hour} {
		clock.Set(t, want)
		if got := skew(t, client); got != want {
			t.Errorf("the clock is %v ahead, want %v", got, want)
		}
	}
	server.Kill()
	server.Restart()
	if got := skew(t, client); got != 24*time.Hour {
		t.Errorf("after a restart the clock is %v ahead", got)
	}
}

func TestRedisClock_MovesWhatExpires(t *testing.T) {
	t.Parallel()
	server, clock := testenv.NewRedisClock(t)
	client := server.Client(t)
	if err := client.Set(t.Context(), "a", 1, 30*time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	clock.Set(t, -time.Hour)
	if n := client.Exists(t.Context(), "a").Val(); n != 1 {
		t.Error("it ended early")
	}
	clock.Set(t, time.Hour)
	if n := client.Exists(t.Context(), "a").Val(); n != 0 {
		t.Error("it has not ended")
	}
}

func TestRedisClock_ThatDoesNotMoveFailsTheTest(t *testing.T) {
	t.Parallel()
	server, clock := testenv.NewRedisClock(t)
	watcher := &recorder{T: t}
	server.Kill()
	clock.Set(watcher, time.Hour)
	if len(watcher.errors) != 1 {
		t.Errorf("errors: %q", watcher.errors)
	}
}
