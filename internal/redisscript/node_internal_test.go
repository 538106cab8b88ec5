package redisscript

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/redis/go-redis/v9"
)

func TestRunnersOnOneClientShareWhatIsKnownOfItsServer(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:0"})
	defer func() { _ = client.Close() }()
	other := redis.NewClient(&redis.Options{Addr: "127.0.0.1:0"})
	defer func() { _ = other.Close() }()
	a, b, c := NewRunner(client, nil), NewRunner(client, nil), NewRunner(other, nil)
	if a.Link() != b.Link() || a.Link() == c.Link() {
		t.Error("what is known of a server does not belong to the client")
	}
}

func TestAClientThatNobodyUsesAnyMoreIsForgotten(t *testing.T) {
	key := func() weak.Pointer[redis.Client] {
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:0"})
		defer func() { _ = client.Close() }()
		NewRunner(client, nil)
		return weak.Make(client)
	}()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		runtime.GC()
		if _, known := clients.Load(key); !known {
			return
		}
		if time.Now().After(end) {
			t.Fatal("it is still known")
		}
	}
}

func TestNodesThatComeAndGoAreBounded(t *testing.T) {
	var ns nodes
	first := ns.get("node 0", 10)
	for i := range 10 * mostNodes {
		ns.get(fmt.Sprint("node ", i), 10)
	}
	if n := len(ns.byName); n > mostNodes {
		t.Errorf("%d nodes are known, want %d at most", n, mostNodes)
	}
	if first.link == nil || ns.get("node 0", 10).refuse() != nil {
		t.Error("a node that was dropped is unusable")
	}
}
