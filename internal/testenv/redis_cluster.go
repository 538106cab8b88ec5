package testenv

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// RedisCluster is a Redis Cluster of three primaries without replicas, each
// of which has a third of the slots and may be stopped and killed by itself.
type RedisCluster struct{ nodes []*RedisServer }

const clusterNodes = 3

// NewRedisCluster starts a cluster for this test alone, and waits until it
// takes commands, which is some two seconds. Each of conf is a line of
// redis.conf, for all nodes, such as "cluster-node-timeout 1000": after that
// time, by default 15 s, a dead node takes the others out of service.
func NewRedisCluster(t TB, conf ...string) *RedisCluster {
	t.Helper()
	c := &RedisCluster{}
	for i := range clusterNodes {
		bus := FreePort(t) // by default 10,000 above the other, where anything may listen
		c.nodes = append(c.nodes, newRedis(t, fmt.Sprintf("redis-node-%d", i), append([]string{
			"cluster-enabled yes",
			"cluster-announce-ip 127.0.0.1",
			"cluster-port " + strconv.Itoa(bus),
			"cluster-announce-bus-port " + strconv.Itoa(bus),
		}, conf...)))
	}
	if err := c.join(); err != nil {
		t.Fatalf("testenv: make a cluster: %v", err)
	}
	c.WaitReady(t)
	return c
}

// join hands out the slots and makes the nodes known to each other.
func (c *RedisCluster) join() error {
	for i, node := range c.nodes {
		first, next := i*redisSlots/clusterNodes, (i+1)*redisSlots/clusterNodes
		for _, command := range [][]any{
			{"cluster", "set-config-epoch", i + 1}, // or they would have to agree on who is older
			{"cluster", "addslotsrange", first, next - 1},
		} {
			if _, err := node.command(command...); err != nil {
				return err
			}
		}
	}
	for i, node := range c.nodes {
		for _, other := range c.nodes[:i] {
			bus, err := other.command("config", "get", "cluster-port")
			if err != nil {
				return err
			}
			if _, err := node.command("cluster", "meet", "127.0.0.1", other.process.port, pairs(bus)["cluster-port"]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Nodes are the servers, in the order of the slots that they had first.
func (c *RedisCluster) Nodes() []*RedisServer { return slices.Clone(c.nodes) }

// Addrs is host:port of each node.
func (c *RedisCluster) Addrs() []string {
	addrs := make([]string, 0, len(c.nodes))
	for _, node := range c.nodes {
		addrs = append(addrs, node.Addr())
	}
	return addrs
}

// Client returns a client that finds the node of each key, obeys contexts and
// is closed at the end of t. Each of edits may change its options before it is
// made.
func (c *RedisCluster) Client(t TB, edits ...func(*redis.ClusterOptions)) *redis.ClusterClient {
	t.Helper()
	options := &redis.ClusterOptions{Addrs: c.Addrs(), ContextTimeoutEnabled: true}
	for _, edit := range edits {
		edit(options)
	}
	client := redis.NewClusterClient(options)
	t.Cleanup(func() { _ = client.Close() }) // the test may have closed it itself
	return client
}

// WaitReady waits up to a minute until all nodes take commands and agree on
// who has which slot, as they do after a killed one has been restarted. It
// ends the test if that does not come about.
func (c *RedisCluster) WaitReady(t TB) {
	t.Helper()
	if err := eventually(c.ready); err != nil {
		t.Fatalf("testenv: the cluster is in order %v", err)
	}
}

func (c *RedisCluster) ready() error {
	var first clusterView
	for i, node := range c.nodes {
		text, err := node.text("cluster", "info")
		if err != nil {
			return err
		}
		if state := fields(text)["cluster_state"]; state != "ok" {
			return fmt.Errorf("%s: the cluster's state is %s", node.process.name, state)
		}
		view, err := node.clusterView()
		if err != nil {
			return err
		}
		if err := view.whole(len(c.nodes)); err != nil {
			return fmt.Errorf("%s: %w", node.process.name, err)
		}
		if i == 0 {
			first = view
		}
		if !view.agrees(first) {
			return fmt.Errorf("%s and %s disagree on slots", node.process.name, c.nodes[0].process.name)
		}
	}
	return nil
}

// Owner is the node that has a slot, which [RedisSlot] tells for a key; for one
// that is being moved it is the node that it is moved from. It ends the test if
// no node has it.
func (c *RedisCluster) Owner(t TB, slot int) *RedisServer {
	t.Helper()
	node, err := c.owner(slot)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return node
}

// owner asks the nodes in turn, since some of them may be dead, what they say
// of themselves.
func (c *RedisCluster) owner(slot int) (*RedisServer, error) {
	var errs error
	for _, node := range c.nodes {
		if _, err := node.process.alive(); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		view, err := node.clusterView()
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if view.has(slot) {
			return node, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("no node has slot %d", slot), errs)
}
