package testenv

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// clusterView is what one node of a Redis Cluster knows of all (CLUSTER NODES).
type clusterView []clusterMember

type clusterMember struct {
	id        string
	self      bool // the one that was asked
	connected bool // and not suspected to be dead
	slots     []slotRange
}

type slotRange struct{ first, last int }

func (s *RedisServer) clusterView() (clusterView, error) {
	text, err := s.text("cluster", "nodes")
	if err != nil {
		return nil, err
	}
	var view clusterView
	for line := range strings.Lines(text) {
		member, err := parseMember(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", s.process.name, line, err)
		}
		view = append(view, member)
	}
	slices.SortFunc(view, func(a, b clusterMember) int { return strings.Compare(a.id, b.id) })
	return view, nil
}

// parseMember reads a line "id addr flags primary ping pong epoch link slots…".
func parseMember(line string) (clusterMember, error) {
	words := strings.Fields(line)
	if len(words) < 8 {
		return clusterMember{}, fmt.Errorf("%d words", len(words))
	}
	flags := strings.Split(words[2], ",")
	m := clusterMember{
		id:        words[0],
		self:      slices.Contains(flags, "myself"),
		connected: words[7] == "connected" && flags[len(flags)-1] == "master",
	}
	for _, word := range words[8:] {
		if strings.HasPrefix(word, "[") {
			continue // a slot that is being moved; its owner lists it as well
		}
		first, last, isRange := strings.Cut(word, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		if err != nil {
			return clusterMember{}, err
		}
		to, err := strconv.Atoi(last)
		if err != nil {
			return clusterMember{}, err
		}
		m.slots = append(m.slots, slotRange{from, to})
	}
	return m, nil
}

// whole is nil if that many nodes are there and have all slots.
func (v clusterView) whole(nodes int) error {
	slots := 0
	for _, m := range v {
		if !m.connected {
			return fmt.Errorf("node %s is not connected", m.id)
		}
		for _, r := range m.slots {
			slots += r.last - r.first + 1
		}
	}
	if len(v) != nodes || slots != redisSlots {
		return fmt.Errorf("%d nodes have %d slots", len(v), slots)
	}
	return nil
}

// agrees reports whether both see the same nodes with the same slots.
func (v clusterView) agrees(other clusterView) bool {
	return slices.EqualFunc(v, other, func(a, b clusterMember) bool {
		return a.id == b.id && slices.Equal(a.slots, b.slots)
	})
}

// has reports whether the node that was asked has the slot.
func (v clusterView) has(slot int) bool {
	self := v.self()
	return slices.ContainsFunc(self.slots, func(r slotRange) bool { return r.first <= slot && slot <= r.last })
}

func (v clusterView) self() clusterMember {
	return v[slices.IndexFunc(v, func(m clusterMember) bool { return m.self })]
}
