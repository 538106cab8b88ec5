package testenv

import (
	"errors"
	"fmt"
	"strings"
)

const redisSlots = 16384

// RedisSlot is the slot of a key in a Redis Cluster: that of its hash tag (what
// is between the first { and the next }), if it has one that is not empty.
func RedisSlot(key string) int {
	if _, behind, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(behind, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16 // CRC-16/XMODEM
	for _, b := range []byte(key) {
		crc ^= uint16(b) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return int(crc) % redisSlots
}

// SlotMove is a slot on its way from one node of a cluster to another. While it
// lasts the old owner answers for the keys that it still has and sends clients
// on with ASK for all others; a command on several keys, some of them here and
// some there, gets TRYAGAIN. A failure fails the test without ending it.
type SlotMove struct {
	cluster  *RedisCluster
	slot     int
	from, to *RedisServer
}

// BeginMove opens the move of a slot; no key has moved yet. It ends the test
// if the slot cannot be moved.
func (c *RedisCluster) BeginMove(t TB, slot int, to *RedisServer) *SlotMove {
	t.Helper()
	move, err := c.beginMove(slot, to)
	if err != nil {
		t.Fatalf("testenv: move slot %d: %v", slot, err)
	}
	return move
}

// MoveSlot moves a slot with its keys while clients are at work, one key at a
// time. Each of after is called after each key; it may dawdle, and use the
// cluster. A failure fails the test without ending it, so MoveSlot may be
// called from any goroutine.
func (c *RedisCluster) MoveSlot(t TB, slot int, to *RedisServer, after ...func(key string)) {
	t.Helper()
	move, err := c.beginMove(slot, to)
	if err == nil {
		err = move.finish(after)
	}
	if err != nil {
		t.Errorf("testenv: move slot %d: %v", slot, err)
	}
}

// Key moves one key. One that is not there (any more) is no error.
func (m *SlotMove) Key(t TB, key string) {
	t.Helper()
	if err := m.key(key); err != nil {
		t.Errorf("testenv: move slot %d: %v", m.slot, err)
	}
}

// Finish moves the keys that are left, and the slot.
func (m *SlotMove) Finish(t TB) {
	t.Helper()
	if err := m.finish(nil); err != nil {
		t.Errorf("testenv: move slot %d: %v", m.slot, err)
	}
}

func (c *RedisCluster) beginMove(slot int, to *RedisServer) (*SlotMove, error) {
	from, err := c.owner(slot)
	if err != nil {
		return nil, err
	}
	if from == to {
		return nil, errors.New("it is there already")
	}
	m := &SlotMove{cluster: c, slot: slot, from: from, to: to}
	// The new owner first: the old one sends clients there from then on.
	if err := m.set(to, "importing", from); err != nil {
		return nil, err
	}
	return m, m.set(from, "migrating", to)
}

func (m *SlotMove) key(key string) error {
	_, err := m.from.command("migrate", "127.0.0.1", m.to.process.port, key, 0, adminTimeout.Milliseconds())
	return err
}

func (m *SlotMove) finish(after []func(key string)) error {
	for {
		reply, err := m.from.command("cluster", "getkeysinslot", m.slot, 100)
		if err != nil {
			return err
		}
		keys, _ := reply.([]any)
		if len(keys) == 0 {
			return m.handOver()
		}
		for _, one := range keys {
			key := fmt.Sprint(one)
			if err := m.key(key); err != nil {
				return err
			}
			for _, f := range after {
				f(key)
			}
		}
	}
}

// handOver tells the new owner first, or nobody would have the slot for a
// moment, then the old one. The others would hear of it, but later; one that
// is dead does.
func (m *SlotMove) handOver() error {
	for _, node := range []*RedisServer{m.to, m.from} {
		if err := m.set(node, "node", m.to); err != nil {
			return err
		}
	}
	for _, node := range m.cluster.nodes {
		if _, err := node.process.alive(); err != nil || node == m.to || node == m.from {
			continue
		}
		if err := m.set(node, "node", m.to); err != nil {
			return err
		}
	}
	return nil
}

// set changes what a node knows of the slot.
func (m *SlotMove) set(node *RedisServer, state string, peer *RedisServer) error {
	id, err := peer.command("cluster", "myid")
	if err != nil {
		return err
	}
	_, err = node.command("cluster", "setslot", m.slot, state, id)
	return err
}
