package testenv

import (
	"errors"
	"fmt"
	"strconv"
)

// RedisPair is a Redis and its replica, each of which may be stopped and
// killed by itself. Replication is asynchronous, so a promoted replica may lack
// what the primary has acknowledged. A test that has to lose a write says so:
//
//	pair.Replica.Stop()
//	pair.CutLink(t)
//	// … what is written now is lost …
//	pair.Primary.Kill()
//	pair.Replica.Cont()
//	pair.Promote(t)
type RedisPair struct {
	// Primary and Replica are named by how they started, and keep their names
	// when roles change.
	Primary, Replica *RedisServer
}

// NewRedisPair starts a Redis and its replica for this test alone, and waits
// until they are in sync. Each of conf is a line of redis.conf, for both.
func NewRedisPair(t TB, conf ...string) *RedisPair {
	t.Helper()
	conf = append([]string{
		// The link has a user of its own, so that a primary can refuse it
		// whatever state the replica is in.
		"user replica on >replica +psync +replconf +ping",
		"masteruser replica",
		"masterauth replica",
		"repl-diskless-sync-delay 0", // by default 5 s, in which more replicas may come
	}, conf...)
	primary := newRedis(t, "redis-primary", conf)
	conf = append(conf, "replicaof 127.0.0.1 "+strconv.Itoa(primary.process.port))
	pair := &RedisPair{Primary: primary, Replica: newRedis(t, "redis-replica", conf)}
	pair.WaitInSync(t)
	return pair
}

// WaitInSync waits up to a minute until one of the two replicates from the
// other and has all that was written before the call. It ends the test if that
// does not come about.
func (p *RedisPair) WaitInSync(t TB) {
	t.Helper()
	err := eventually(func() error {
		asStarted := inSync(p.Primary, p.Replica)
		if asStarted == nil {
			return nil
		}
		swapped := inSync(p.Replica, p.Primary)
		if swapped == nil {
			return nil
		}
		return errors.Join(asStarted, swapped)
	})
	if err != nil {
		t.Fatalf("testenv: no pair in sync %v", err)
	}
}

// inSync is nil if the replica has all that the primary has.
func inSync(primary, replica *RedisServer) error {
	of, err := primary.info("replication") // first: the replica may be ahead of it, never behind
	if err != nil {
		return err
	}
	has, err := replica.info("replication")
	if err != nil {
		return err
	}
	if of["role"] != "master" || has["master_port"] != strconv.Itoa(primary.process.port) {
		return fmt.Errorf("%s is no replica of %s", replica.process.name, primary.process.name)
	}
	if has["master_link_status"] != "up" || has["master_replid"] != of["master_replid"] {
		return fmt.Errorf("the link of %s to %s is %s", replica.process.name, primary.process.name, has["master_link_status"])
	}
	written, err := strconv.ParseInt(of["master_repl_offset"], 10, 64)
	if err != nil {
		return fmt.Errorf("offset of %s: %w", primary.process.name, err)
	}
	read, err := strconv.ParseInt(has["slave_repl_offset"], 10, 64)
	if err != nil {
		return fmt.Errorf("offset of %s: %w", replica.process.name, err)
	}
	if read < written {
		return fmt.Errorf("%s has %d bytes of %d", replica.process.name, read, written)
	}
	return nil
}

// CutLink has Primary hang up on its replica and refuse it until
// [RedisPair.MendLink], also over restarts. The replica keeps what it has and
// may be running or stopped; one that is stopped finds, when it goes on, what
// was sent before the cut and nothing that was written after it. A failure
// fails the test without ending it.
func (p *RedisPair) CutLink(t TB) {
	t.Helper()
	p.link(t, "off")
	if _, err := p.Primary.command("client", "kill", "user", "replica"); err != nil {
		t.Errorf("testenv: cut the link: %v", err)
	}
}

// MendLink lets the replica come back, which it tries each second.
func (p *RedisPair) MendLink(t TB) {
	t.Helper()
	p.link(t, "on")
}

func (p *RedisPair) link(t TB, state string) {
	t.Helper()
	_, err := p.Primary.command("acl", "setuser", "replica", state)
	if err == nil {
		_, err = p.Primary.command("config", "rewrite")
	}
	if err != nil {
		t.Errorf("testenv: turn the link %s: %v", state, err)
	}
}

// Promote makes Replica a primary (REPLICAOF NO ONE), which it stays over
// restarts, whatever Primary does. A failure fails the test without ending it;
// a replica that is stopped is one.
func (p *RedisPair) Promote(t TB) {
	t.Helper()
	_, err := p.Replica.command("replicaof", "no", "one")
	if err == nil {
		_, err = p.Replica.command("config", "rewrite")
	}
	if err != nil {
		t.Errorf("testenv: promote: %v", err)
	}
}
