package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// RedisClock is the clock of one Redis, which runs as the machine's does until
// it is set: what TIME tells, and what expires by.
type RedisClock struct {
	server *RedisServer
	file   string // how far it is from the machine's; read by the server at each look
}

// NewRedisClock starts a Redis as [NewRedis] does, whose clock the test may
// move. It takes libfaketime.
func NewRedisClock(t TB, conf ...string) (*RedisServer, *RedisClock) {
	t.Helper()
	clock := &RedisClock{}
	clock.server = &RedisServer{
		Controls: own(t, func() (*process, error) { return clock.start(takingData(conf)) }),
		prefix:   Name(t) + ":",
	}
	return clock.server, clock
}

// Set makes the clock jump until it is ahead of the machine's by d, behind if d
// is negative, and stay so over restarts. The server is to run. A failure fails
// the test without ending it.
func (c *RedisClock) Set(t TB, d time.Duration) {
	t.Helper()
	err := c.write(d)
	if err == nil {
		err = c.check(d)
	}
	if err != nil {
		t.Errorf("testenv: set the clock of %s: %v", c.server.process.name, err)
	}
}

// write tells the server the difference, in one step: it may look at any time.
func (c *RedisClock) write(d time.Duration) error {
	draft := c.file + ".new"
	if err := os.WriteFile(draft, fmt.Appendf(nil, "%+f\n", d.Seconds()), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, c.file)
}

// check asks the server what time it is.
func (c *RedisClock) check(d time.Duration) error {
	const slack = time.Second // the machine's own clock may be put right meanwhile
	earliest := time.Now().Add(d - slack)
	reply, err := c.server.command("time")
	if err != nil {
		return err
	}
	latest := time.Now().Add(d + slack)
	var seconds int64
	if list, _ := reply.([]any); len(list) == 2 {
		seconds, _ = strconv.ParseInt(fmt.Sprint(list[0]), 10, 64)
	}
	if said := time.Unix(seconds, 0); said.Before(earliest.Truncate(time.Second)) || said.After(latest) {
		return fmt.Errorf("it says %v, want from %v to %v", said, earliest, latest)
	}
	return nil
}

func (c *RedisClock) start(conf []string) (*process, error) {
	program, err := findRedis()
	if err != nil {
		return nil, err
	}
	const library = "libfaketimeMT.so.1"
	fake, err := find(library, "apt-get install libfaketime",
		"/usr/lib/*/faketime/"+library, "/usr/lib*/faketime/"+library, "/usr/local/lib/faketime/"+library)
	if err != nil {
		return nil, err
	}
	return serve("redis-clock", func(dir string, port int) (*process, error) {
		c.file = filepath.Join(dir, "clock")
		if err := c.write(0); err != nil {
			return nil, err
		}
		p, err := redisProcess(program, "redis-clock", redisReady, dir, port, conf)
		if err != nil {
			return nil, err
		}
		p.template.Env = append(os.Environ(),
			// jemalloc asks for the time before libfaketime can answer, and
			// the start hangs; so malloc is the C library's here.
			"LD_PRELOAD="+fake+":libc.so.6",
			"FAKETIME_TIMESTAMP_FILE="+c.file,
			"FAKETIME_NO_CACHE=1",
			// A server measures its own pauses by this one, which never jumps.
			// Older releases know the shorter name.
			"FAKETIME_DONT_FAKE_MONOTONIC=1",
			"DONT_FAKE_MONOTONIC=1",
		)
		p.ready.then = forgetShared
		return p, nil
	})
}

// forgetShared removes the names under which libfaketime would share its state
// with children: a killed server leaves them behind, and a later one with the
// same process ID would not start. What is open stays usable.
func forgetShared(pid int) {
	for _, name := range []string{"faketime_shm_", "sem.faketime_sem_"} {
		_ = os.Remove(filepath.Join("/dev/shm", name+strconv.Itoa(pid))) // not there in all versions
	}
}
