package redisscript

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/coalesce"
)

// node is what this process knows of one server, as one client reaches it. All
// Runners on that client share it.
type node struct {
	link *coalesce.Link
	breaker
}

func newNode(name string, connections int) *node {
	n := &node{}
	n.init(name)
	n.link = coalesce.NewLink(connections, n.refuse)
	return n
}

// mostNodes bounds how many servers are remembered for one client: nodes of a
// cluster come and go.
const mostNodes = 256

// nodes are the servers behind one client.
type nodes struct {
	warned sync.Once
	placed atomic.Bool // a cluster client knows its slots: to ask it never waits

	mu     sync.RWMutex
	byName map[string]*node
}

// place notes that a client has reached a server.
func (ns *nodes) place() {
	if !ns.placed.Load() {
		ns.placed.Store(true)
	}
}

// clients maps weak pointers of clients to their *nodes.
var clients sync.Map

// nodesOf returns what all Runners on a client share. A client that is wrapped
// can't be told apart, and is one server.
func nodesOf(client redis.UniversalClient) *nodes {
	switch c := client.(type) {
	case *redis.Client:
		return shared(c)
	case *redis.ClusterClient:
		return shared(c)
	case *redis.Ring:
		return shared(c)
	default:
		return &nodes{}
	}
}

func shared[C any](client *C) *nodes {
	key := weak.Make(client)
	if known, ok := clients.Load(key); ok {
		return known.(*nodes)
	}
	known, met := clients.LoadOrStore(key, &nodes{})
	if !met {
		runtime.AddCleanup(client, func(key weak.Pointer[C]) { clients.Delete(key) }, key)
	}
	return known.(*nodes)
}

// get returns the node of that name.
func (ns *nodes) get(name string, connections int) *node {
	ns.mu.RLock()
	n := ns.byName[name]
	ns.mu.RUnlock()
	if n != nil {
		return n
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if n := ns.byName[name]; n != nil {
		return n
	}
	if ns.byName == nil || len(ns.byName) >= mostNodes {
		ns.byName = make(map[string]*node) // who uses one keeps it; the others are learnt anew
	}
	n = newNode(name, connections)
	ns.byName[name] = n
	return n
}

// node returns the server that owns the keys, which share a slot. It waits for
// nothing.
func (r *Runner) node(keys []string) *node {
	if r.only != nil {
		return r.only
	}
	if server := r.server(keys); server != nil {
		o := server.Options()
		return r.nodes.get(o.Addr, o.PoolSize)
	}
	return r.nodes.get("", 0) // one for all whose owner is not known yet
}

// server returns the client of the server that owns the keys, nil where that
// can't be told without waiting.
func (r *Runner) server(keys []string) *redis.Client {
	var server *redis.Client
	switch c := r.client.(type) {
	case *redis.Client:
		server = c
	case *redis.ClusterClient:
		// Its first look at the cluster may meet a frozen node, and wait. Later
		// ones are made in the background.
		if len(keys) > 0 && r.nodes.placed.Load() {
			server, _ = c.MasterForKey(context.Background(), keys[0])
		}
	case *redis.Ring:
		if len(keys) > 0 {
			server, _ = c.GetShardClientForKey(keys[0])
		}
	}
	return server
}

// single returns the node of a client that has only one.
func (r *Runner) single() *node {
	switch c := r.client.(type) {
	case *redis.ClusterClient, *redis.Ring:
		return nil
	case *redis.Client:
		return r.nodes.get("", c.Options().PoolSize)
	default:
		return r.nodes.get("", 0)
	}
}

// Link returns the way to the server that owns the keys, which share a slot, for
// a [coalesce.Batcher] whose flights call [Runner.RunNow] or
// [Runner.RunReplicated].
func (r *Runner) Link(keys ...string) *coalesce.Link { return r.node(keys).link }

// batcher returns the one that gathers calls for a server.
func (r *Runner) batcher(n *node) *coalesce.Batcher[invocation, any] {
	r.mu.RLock()
	b := r.batchers[n]
	r.mu.RUnlock()
	if b != nil {
		return b
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.batchers[n]; b != nil {
		return b
	}
	if r.batchers == nil || len(r.batchers) >= mostNodes {
		r.batchers = make(map[*node]*coalesce.Batcher[invocation, any]) // calls in the old ones end there
	}
	b = coalesce.New(func(ctx context.Context, batch []*coalesce.Call[invocation, any]) { r.fly(ctx, n, batch) },
		&coalesce.Options{MaxQueue: r.opts.MaxQueue, Timeout: r.opts.Timeout, Unordered: true, Link: func() *coalesce.Link { return n.link }})
	r.batchers[n] = b
	return b
}

// obeysContexts reports whether a client ends calls with their context, true
// where that can't be told.
func obeysContexts(client redis.UniversalClient) bool {
	switch c := client.(type) {
	case *redis.Client:
		return c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		return c.Options().ContextTimeoutEnabled
	case *redis.Ring:
		return c.Options().ContextTimeoutEnabled
	default:
		return true
	}
}

// retries reports whether a client sends again what got no answer.
func retries(client redis.UniversalClient) bool {
	switch c := client.(type) {
	case *redis.Client:
		return c.Options().MaxRetries > 0
	case *redis.ClusterClient:
		return c.Options().MaxRedirects > 0
	case *redis.Ring:
		return c.Options().MaxRetries > 0
	default:
		return true
	}
}
