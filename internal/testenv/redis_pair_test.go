package testenv_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
)

func TestRedisPair_ReplicaHasWhatWasWrittenBefore(t *testing.T) {
	t.Parallel()
	pair := testenv.NewRedisPair(t)
	if err := pair.Primary.Client(t).Set(t.Context(), "a", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	pair.WaitInSync(t)
	replica := pair.Replica.Client(t)
	if n, err := replica.Get(t.Context(), "a").Int(); err != nil || n != 1 {
		t.Errorf("the replica has %d, %v", n, err)
	}
	if err := replica.Set(t.Context(), "a", 2, 0).Err(); !redis.IsReadOnlyError(err) {
		t.Errorf("a write to the replica: %v", err)
	}
}

func TestRedisPair_PromotedReplicaLacksWhatWasWrittenAfterTheCut(t *testing.T) {
	t.Parallel()
	pair := testenv.NewRedisPair(t)
	primary := pair.Primary.Client(t)
	if err := primary.Set(t.Context(), "before", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	pair.WaitInSync(t)

	pair.Replica.Stop()
	pair.CutLink(t)
	if err := primary.Set(t.Context(), "after", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	pair.Primary.Kill()
	pair.Replica.Cont()
	pair.Promote(t)

	promoted := pair.Replica.Client(t)
	if err := promoted.Get(t.Context(), "before").Err(); err != nil {
		t.Errorf("what was in sync: %v", err)
	}
	if err := promoted.Get(t.Context(), "after").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("what was written after the cut: %v, want nothing there", err)
	}
	if err := promoted.Set(t.Context(), "since", 1, 0).Err(); err != nil {
		t.Errorf("a write to the promoted one: %v", err)
	}
}

func TestRedisPair_CutLinkStaysCutOverRestartsUntilItIsMended(t *testing.T) {
	t.Parallel()
	pair := testenv.NewRedisPair(t, "appendonly yes", "appendfsync always")
	pair.CutLink(t)
	pair.Primary.Restart()
	pair.Replica.Restart()
	if err := pair.Primary.Client(t).Set(t.Context(), "a", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	refused := func() int { return strings.Count(pair.Replica.Output(), "Unable to AUTH to MASTER") }
	before := refused()
	within(t, time.Minute, func() error {
		if refused() == before {
			return errors.New("the replica was not refused")
		}
		return nil
	})
	if err := pair.Replica.Client(t).Get(t.Context(), "a").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("what was written after the cut: %v, want nothing there", err)
	}
	pair.MendLink(t)
	pair.WaitInSync(t)
	if n, err := pair.Replica.Client(t).Get(t.Context(), "a").Int(); err != nil || n != 1 {
		t.Errorf("after MendLink the replica has %d, %v", n, err)
	}
}

func TestRedisPair_PromotedReplicaStaysPrimaryOverARestart(t *testing.T) {
	t.Parallel()
	pair := testenv.NewRedisPair(t)
	pair.Promote(t)
	pair.Replica.Restart()
	if err := pair.Replica.Client(t).Set(t.Context(), "a", 1, 0).Err(); err != nil {
		t.Error(err)
	}
}
