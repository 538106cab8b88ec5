package testenv_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
)

func TestRedis_IsSharedAndEachHandleHasItsPrefix(t *testing.T) {
	t.Parallel()
	a, b := testenv.Redis(t), testenv.Redis(t)
	if a.Addr() != b.Addr() {
		t.Errorf("two servers: %s and %s", a.Addr(), b.Addr())
	}
	if a.Prefix() == b.Prefix() {
		t.Errorf("one prefix: %s", a.Prefix())
	}
	if strings.ContainsAny(a.Prefix(), "{}* ") {
		t.Errorf("prefix %q takes the hash tag's place", a.Prefix())
	}
	if err := a.Client(t).Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	options, err := redis.ParseURL(a.URL())
	if err != nil || options.Addr != a.Addr() {
		t.Errorf("URL %s: %v", a.URL(), err)
	}
}

func TestRedis_SharedOneRefusesToBeBroken(t *testing.T) {
	t.Parallel()
	watcher := &recorder{T: t}
	var server *testenv.RedisServer
	watcher.run(func() { server = testenv.Redis(watcher) })
	if server == nil {
		t.Fatal(watcher.fatal)
	}
	for name, control := range map[string]func(){
		"Stop": server.Stop, "Cont": server.Cont, "Kill": server.Kill, "Restart": server.Restart, "RestartEmpty": server.RestartEmpty,
	} {
		watcher.errors = nil
		control()
		if len(watcher.errors) != 1 || !strings.Contains(watcher.errors[0], "shared") {
			t.Errorf("%s: %q", name, watcher.errors)
		}
	}
	if err := server.Client(t).Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}

func TestRedis_StoppedOneHangsAndContinuedOneAnswers(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	client := server.Client(t)
	if err := client.Set(t.Context(), "a", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := client.Get(ctx, "a").Err(); err == nil {
		t.Error("a stopped server answered")
	}
	server.Cont()
	if n, err := client.Get(t.Context(), "a").Int(); err != nil || n != 1 {
		t.Errorf("after Cont: %d, %v", n, err)
	}
}

func TestRedis_KilledOneWithAppendOnlyFileKeepsAllThatItAcknowledged(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t, "appendonly yes", "appendfsync always")
	client := server.Client(t)
	for range 100 {
		if err := client.Incr(t.Context(), "a").Err(); err != nil {
			t.Fatal(err)
		}
	}
	before, addr := server.PID(), server.Addr()
	server.Kill()
	if err := client.Get(t.Context(), "a").Err(); err == nil {
		t.Error("a killed server answered")
	}
	server.Restart()
	if server.PID() == before || server.Addr() != addr {
		t.Errorf("process %d at %s became %d at %s", before, addr, server.PID(), server.Addr())
	}
	if n, err := client.Get(t.Context(), "a").Int(); err != nil || n != 100 {
		t.Errorf("after Restart: %d, %v", n, err)
	}
}

func TestRedis_KilledWhileStoppedComesBack(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	server.Stop()
	server.Kill()
	server.Restart()
	if err := server.Client(t).Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}

func TestRedis_RestartOfARunningOneKillsItFirst(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	before := server.PID()
	server.Restart()
	if server.PID() == before {
		t.Error("the same process")
	}
	if err := server.Client(t).Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}

func TestRedis_RestartEmptyForgetsWhatWasPersisted(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t, "appendonly yes", "appendfsync always")
	client := server.Client(t)
	if err := client.Set(t.Context(), "a", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	server.RestartEmpty()
	if err := client.Get(t.Context(), "a").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("err = %v, want nothing there", err)
	}
}

func TestRedis_RestartCutLosesTheLastWritesAndNoOthers(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t, "appendonly yes", "appendfsync always")
	client := server.Client(t)
	add := func() {
		for range 10 {
			if err := client.Incr(t.Context(), "a").Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	add()
	whole := server.Persisted()
	add()
	server.RestartCut(whole + 5) // within a command
	if n, err := client.Get(t.Context(), "a").Int(); err != nil || n != 10 {
		t.Errorf("after the cut: %d, %v; want 10", n, err)
	}
}

func TestRedis_BadConfigurationSaysWhatTheServerSaid(t *testing.T) {
	t.Parallel()
	watcher := &recorder{T: t}
	watcher.run(func() { testenv.NewRedis(watcher, "appendfsync sometimes") })
	if !strings.Contains(watcher.fatal, "appendfsync") {
		t.Errorf("message: %s", watcher.fatal)
	}
}
