package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// RedisServer is a real Redis on loopback. [Redis] gives the shared one,
// [NewRedis] a private one, whose [Controls] may be used.
type RedisServer struct {
	Controls
	prefix string
}

var sharedRedis shared

// Redis returns the Redis that the tests of this binary share, without
// persistence. Each call has a [RedisServer.Prefix] of its own.
func Redis(t TB) *RedisServer {
	t.Helper()
	return &RedisServer{
		Controls: sharedRedis.controls(t, func() (*process, error) { return startRedis("redis", nil) }),
		prefix:   Name(t) + ":",
	}
}

// NewRedis starts a Redis for this test alone. Each of conf is a line of
// redis.conf, such as "appendonly yes"; without any nothing is persisted, and
// a restarted server is empty.
func NewRedis(t TB, conf ...string) *RedisServer {
	t.Helper()
	return newRedis(t, "redis", conf)
}

// newRedis is NewRedis under a name by which a test's failure tells one of its
// servers from another.
func newRedis(t TB, name string, conf []string) *RedisServer {
	t.Helper()
	return &RedisServer{
		Controls: own(t, func() (*process, error) { return startRedis(name, conf) }),
		prefix:   Name(t) + ":",
	}
}

// Addr is host:port.
func (s *RedisServer) Addr() string { return loopback(s.process.port) }

// URL is redis://host:port/0.
func (s *RedisServer) URL() string { return "redis://" + s.Addr() + "/0" }

// Prefix is what this test's keys start with on a shared server, ending in a
// colon. It holds no braces, so it leaves the hash tag to the caller.
func (s *RedisServer) Prefix() string { return s.prefix }

// Client returns a client that obeys contexts and is closed at the end of t.
// Each of edits may change its options before it is made.
func (s *RedisServer) Client(t TB, edits ...func(*redis.Options)) *redis.Client {
	t.Helper()
	return newClient(t, &redis.Options{Addr: s.Addr()}, edits)
}

// RestartEmpty is Restart after all that was persisted (append-only file and
// snapshot) has been deleted.
func (s *RedisServer) RestartEmpty() {
	s.t.Helper()
	s.do(func(p *process) error {
		if err := p.kill(); err != nil {
			return err
		}
		for _, name := range []string{"appendonlydir", "appendonly.aof", "dump.rdb"} {
			if err := os.RemoveAll(filepath.Join(p.dir, name)); err != nil {
				return fmt.Errorf("empty %s: %w", p.name, err)
			}
		}
		return p.start()
	})
}

// Persisted is how long the append-only file is at this moment. A failure
// fails the test without ending it.
func (s *RedisServer) Persisted() (bytes int64) {
	s.t.Helper()
	_, info, err := s.appendOnlyFile()
	if err != nil {
		s.t.Errorf("testenv: %v", err)
		return 0
	}
	return info.Size()
}

// RestartCut is Restart after the append-only file has lost all behind that
// many bytes, as a machine that loses its power loses what it had not synced.
// The cut may go through a command, which the server then forgets as a whole
// (aof-load-truncated). A server that still runs is killed first; the
// file must not have been rewritten since the bytes were counted.
func (s *RedisServer) RestartCut(bytes int64) {
	s.t.Helper()
	s.do(func(p *process) error {
		if err := p.kill(); err != nil {
			return err
		}
		file, info, err := s.appendOnlyFile()
		if err != nil {
			return err
		}
		if err := os.Truncate(file, min(bytes, info.Size())); err != nil {
			return fmt.Errorf("cut %s: %w", p.name, err)
		}
		return p.start()
	})
}

// appendOnlyFile finds the file that grows: since Redis 7 it has a folder.
func (s *RedisServer) appendOnlyFile() (string, os.FileInfo, error) {
	dir := s.process.dir
	files, _ := filepath.Glob(filepath.Join(dir, "appendonlydir", "*.incr.aof"))
	if len(files) == 0 {
		files = []string{filepath.Join(dir, "appendonly.aof")}
	}
	file := files[len(files)-1]
	info, err := os.Stat(file)
	if err != nil {
		return "", nil, fmt.Errorf("append-only file of %s: %w", s.process.name, err)
	}
	return file, info, nil
}

func newClient(t TB, options *redis.Options, edits []func(*redis.Options)) *redis.Client {
	t.Helper()
	// Off by default in go-redis, where a call then outlives its context.
	options.ContextTimeoutEnabled = true
	for _, edit := range edits {
		edit(options)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() }) // the test may have closed it itself
	return client
}

// startRedis starts a server that takes data. conf comes last and wins.
func startRedis(name string, conf []string) (*process, error) {
	return runRedis(name, redisReady, takingData(conf))
}

// redisReady is what a server that takes data prints when it does.
const redisReady = "Ready to accept connections"

// takingData is the configuration of a server that takes data.
func takingData(conf []string) []string {
	return append([]string{
		`save ""`,
		"appendonly no",
		"maxclients 20000",
	}, conf...)
}

// runRedis starts redis-server on a configuration of those lines. It is ready
// when it has printed ready.
func runRedis(name, ready string, conf []string, args ...string) (*process, error) {
	program, err := findRedis()
	if err != nil {
		return nil, err
	}
	return serve(name, func(dir string, port int) (*process, error) {
		return redisProcess(program, name, ready, dir, port, conf, args...)
	})
}

func findRedis() (string, error) { return find("redis-server", "apt-get install redis-server") }

// redisProcess is a redis-server that is yet to be started in a folder.
func redisProcess(program, name, ready, dir string, port int, conf []string, args ...string) (*process, error) {
	lines := append([]string{
		"bind 127.0.0.1",
		fmt.Sprintf("port %d", port),
		"dir " + dir,
		"daemonize no",
		`logfile ""`,
	}, conf...)
	file := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("configure %s: %w", name, err)
	}
	run := exec.Command(program, append([]string{file}, args...)...)
	return newProcess(name, run, readiness{line: ready}, syscall.SIGKILL), nil
}
