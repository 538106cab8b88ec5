package testenv

import (
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// RedisSentinel is a real Redis Sentinel that watches a [RedisPair] and
// promotes the replica when the primary is gone. It is one process with a
// quorum of one: there is nobody to disagree with, so that a failover takes
// few seconds. Its [Controls] may be used.
type RedisSentinel struct{ Controls }

// sentinelName is what Sentinel calls the pair.
const sentinelName = "pair"

// NewRedisSentinel starts a Sentinel for this test alone, and waits until it
// could fail over. Each of conf is a line of sentinel.conf, where the pair goes
// by the name "pair", such as "sentinel down-after-milliseconds pair 300". The
// default is a second, which a busy machine does not take for a death.
func NewRedisSentinel(t TB, pair *RedisPair, conf ...string) *RedisSentinel {
	t.Helper()
	lines := append([]string{
		"sentinel monitor pair 127.0.0.1 " + strconv.Itoa(pair.Primary.process.port) + " 1",
		"sentinel down-after-milliseconds pair 1000",
		"sentinel failover-timeout pair 3000",
	}, conf...)
	s := &RedisSentinel{own(t, func() (*process, error) {
		return runRedis("redis-sentinel", "+monitor master", lines, "--sentinel")
	})}
	_, err := redisCommand(s.process, "sentinel", "debug",
		"info-period", 1000, // by default 10 s until it sees what a replica is up to
		"publish-period", 500, // four of which it leaves a restarted primary alone, by default 8 s
		"tilt-period", 1000) // by default it does nothing for 30 s after the machine has hung
	if err != nil {
		t.Fatalf("testenv: hurry Sentinel: %v", err)
	}
	if err := eventually(func() error { return s.knows(pair.Replica) }); err != nil {
		t.Fatalf("testenv: Sentinel could fail over %v", err)
	}
	return s
}

// Addr is host:port.
func (s *RedisSentinel) Addr() string { return loopback(s.process.port) }

// URL is what redis.ParseFailoverURL takes.
func (s *RedisSentinel) URL() string {
	return "redis://" + s.Addr() + "/0?master_name=" + s.MasterName()
}

// MasterName is what redis.FailoverOptions takes.
func (s *RedisSentinel) MasterName() string { return sentinelName }

// Client returns a client that follows the primary, obeys contexts and is
// closed at the end of t. Each of edits may change its options before it is
// made.
func (s *RedisSentinel) Client(t TB, edits ...func(*redis.FailoverOptions)) *redis.Client {
	t.Helper()
	options := &redis.FailoverOptions{
		MasterName:            s.MasterName(),
		SentinelAddrs:         []string{s.Addr()},
		ContextTimeoutEnabled: true,
	}
	for _, edit := range edits {
		edit(options)
	}
	client := redis.NewFailoverClient(options)
	t.Cleanup(func() { _ = client.Close() }) // the test may have closed it itself
	return client
}

// WaitPrimary waits up to a minute until Sentinel has finished making server
// the primary and tells its clients so. It ends the test if that does not come
// about.
func (s *RedisSentinel) WaitPrimary(t TB, server *RedisServer) {
	t.Helper()
	err := eventually(func() error {
		reply, err := redisCommand(s.process, "sentinel", "master", s.MasterName())
		if err != nil {
			return err
		}
		now := pairs(reply)
		// The flags also tell of a failover that is under way.
		if now["port"] != strconv.Itoa(server.process.port) || now["flags"] != "master" {
			return fmt.Errorf("the primary is at port %s, %s", now["port"], now["flags"])
		}
		role, err := server.info("replication")
		if err == nil && role["role"] != "master" {
			err = fmt.Errorf("%s is a %s", server.process.name, role["role"])
		}
		return err
	})
	if err != nil {
		t.Fatalf("testenv: %s became no primary %v", server.process.name, err)
	}
}

// knows is nil if Sentinel would promote the replica.
func (s *RedisSentinel) knows(replica *RedisServer) error {
	reply, err := redisCommand(s.process, "sentinel", "replicas", s.MasterName())
	if err != nil {
		return err
	}
	list, _ := reply.([]any)
	for _, one := range list {
		seen := pairs(one)
		if seen["port"] == strconv.Itoa(replica.process.port) && seen["flags"] == "slave" && seen["master-link-status"] == "ok" {
			return nil
		}
	}
	return fmt.Errorf("replicas: %v", reply)
}

// pairs are the names and values that take turns in a reply.
func pairs(reply any) map[string]string {
	list, _ := reply.([]any)
	found := make(map[string]string)
	for i := 0; i+1 < len(list); i += 2 {
		found[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return found
}
