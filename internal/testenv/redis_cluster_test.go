package testenv_test

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
)

// elsewhere is a node of the cluster that does not have the slot.
func elsewhere(t *testing.T, cluster *testenv.RedisCluster, slot int) *testenv.RedisServer {
	t.Helper()
	owner := cluster.Owner(t, slot)
	for _, node := range cluster.Nodes() {
		if node != owner {
			return node
		}
	}
	t.Fatal("one node has everything")
	return nil
}

func TestRedisCluster_EachKeyIsWithTheOwnerOfItsSlot(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t)
	client := cluster.Client(t)
	used := make(map[*testenv.RedisServer]bool)
	for _, key := range []string{"a", "b", "c", "d", "{a}b", "{}a", "a{b", "{{a}}", ""} {
		slot := testenv.RedisSlot(key)
		if want, err := client.ClusterKeySlot(t.Context(), key).Result(); err != nil || int64(slot) != want {
			t.Errorf("key %q: slot %d, want %d, %v", key, slot, want, err)
		}
		if err := client.Set(t.Context(), key, 1, 0).Err(); err != nil {
			t.Error(err)
		}
		owner := cluster.Owner(t, slot)
		used[owner] = true
		if err := owner.Client(t).Get(t.Context(), key).Err(); err != nil {
			t.Errorf("key %q at its owner: %v", key, err)
		}
	}
	if len(used) != len(cluster.Nodes()) {
		t.Errorf("%d nodes have keys", len(used))
	}
}

func TestRedisCluster_RestartedNodeComesBackWithItsSlots(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t, "appendonly yes", "appendfsync always")
	client := cluster.Client(t)
	if err := client.Set(t.Context(), "a", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	owner := cluster.Owner(t, testenv.RedisSlot("a"))
	owner.Kill()
	owner.Restart()
	cluster.WaitReady(t)
	if now := cluster.Owner(t, testenv.RedisSlot("a")); now != owner {
		t.Errorf("the slot went from %s to %s", owner.Addr(), now.Addr())
	}
	if n, err := client.Get(t.Context(), "a").Int(); err != nil || n != 1 {
		t.Errorf("a = %d, %v", n, err)
	}
}

func TestRedisCluster_HalfMovedSlotAsksClientsToGoOnOrTryAgain(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t)
	client := cluster.Client(t)
	const moved, kept = "{s}moved", "{s}kept"
	if err := client.MSet(t.Context(), moved, 1, kept, 2).Err(); err != nil {
		t.Fatal(err)
	}
	slot := testenv.RedisSlot(moved)
	from, to := cluster.Owner(t, slot), elsewhere(t, cluster, slot)

	move := cluster.BeginMove(t, slot, to)
	move.Key(t, moved)
	move.Key(t, "{s}nobody")
	at := from.Client(t)
	if err := at.Get(t.Context(), moved).Err(); !redis.HasErrorPrefix(err, "ASK") {
		t.Errorf("the moved key at its old node: %v", err)
	}
	if err := at.Get(t.Context(), kept).Err(); err != nil {
		t.Errorf("the kept key at its old node: %v", err)
	}
	if err := at.MGet(t.Context(), moved, kept).Err(); !redis.IsTryAgainError(err) {
		t.Errorf("both keys: %v", err)
	}
	if err := to.Client(t).Get(t.Context(), moved).Err(); !redis.HasErrorPrefix(err, "MOVED") {
		t.Errorf("the moved key at its new node: %v", err)
	}
	for key, want := range map[string]int{moved: 1, kept: 2} {
		if n, err := client.Get(t.Context(), key).Int(); err != nil || n != want {
			t.Errorf("%s through the client: %d, %v", key, n, err)
		}
	}

	move.Finish(t)
	cluster.WaitReady(t)
	if owner := cluster.Owner(t, slot); owner != to {
		t.Errorf("the slot is at %s, want %s", owner.Addr(), to.Addr())
	}
	if values, err := client.MGet(t.Context(), moved, kept).Result(); err != nil || fmt.Sprint(values) != "[1 2]" {
		t.Errorf("afterwards: %v, %v", values, err)
	}
}

func TestRedisCluster_KeysKeepTheirValuesWhileTheirSlotMovesUnderClients(t *testing.T) {
	t.Parallel()
	cluster := testenv.NewRedisCluster(t)
	client := cluster.Client(t)
	const keys = 30
	key := func(i int) string { return fmt.Sprintf("{s}%d", i) }
	want := make([]int64, keys)
	step := func(i int) {
		n, err := client.Incr(t.Context(), key(i)).Result()
		want[i]++
		if err != nil || n != want[i] {
			t.Errorf("INCR %s = %d, %v; want %d", key(i), n, err, want[i])
		}
	}
	for i := range keys {
		step(i)
	}
	slot := testenv.RedisSlot("{s}")

	// One goroutine counts the keys up, another writes two keys at once and
	// reads them, as long as the slot moves there and back.
	moved := make(chan struct{})
	turns := make(chan struct{}) // one for each turn of both
	counted, paired := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(counted)
		for i := 0; ; i++ {
			step(i % keys)
			select {
			case <-moved:
				return
			case turns <- struct{}{}:
			}
		}
	}()
	go func() {
		defer close(paired)
		for i := 1; ; i++ {
			writeAndReadTwo(t, client, i)
			select {
			case <-moved:
				return
			case turns <- struct{}{}:
			}
		}
	}()
	var hops int
	for range 2 {
		cluster.MoveSlot(t, slot, elsewhere(t, cluster, slot), func(string) {
			hops++
			<-turns // so that the clients keep pace
			<-turns
		})
	}
	close(moved)
	<-counted
	<-paired

	if hops < 2*keys {
		t.Errorf("%d keys were moved", hops)
	}
	for i := range keys {
		if n, err := client.Get(t.Context(), key(i)).Int64(); err != nil || n != want[i] {
			t.Errorf("%s = %d, %v; want %d", key(i), n, err, want[i])
		}
	}
}

// writeAndReadTwo sets two keys of one slot to i and reads them. While one of
// them is here and the other there, either may be told to try again, and has
// then done nothing.
func writeAndReadTwo(t *testing.T, client *redis.ClusterClient, i int) {
	t.Helper()
	err := client.MSet(t.Context(), "{s}left", i, "{s}right", i).Err()
	if err != nil && !redis.IsTryAgainError(err) {
		t.Errorf("MSET: %v", err)
	}
	written := err == nil
	values, err := client.MGet(t.Context(), "{s}left", "{s}right").Result()
	switch {
	case err != nil:
		if !redis.IsTryAgainError(err) {
			t.Errorf("MGET: %v", err)
		}
	case values[0] != values[1]:
		t.Errorf("two keys that were set together are %v", values)
	case written && values[0] != fmt.Sprint(i):
		t.Errorf("the keys are %v, want %d", values, i)
	}
}
