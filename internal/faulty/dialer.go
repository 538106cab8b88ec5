package faulty

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// Dialer makes connections on which the planned faults happen. All of its
// methods may be called at any time, from any goroutine. Faults are counted
// over all connections together, in the order in which requests are sent; where
// several strike the same request, the one that was planned first happens.
type Dialer struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu     sync.Mutex
	faults []*Fault
	conns  map[*conn]struct{}
}

// NewDialer returns a dialer without faults.
func NewDialer() *Dialer { return NewDialerOn((&net.Dialer{}).DialContext) }

// NewDialerOn returns a dialer without faults whose connections dial makes.
func NewDialerOn(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *Dialer {
	return &Dialer{dial: dial, conns: make(map[*conn]struct{})}
}

// DialContext connects; it is what redis.Options.Dialer, pgconn.Config.DialFunc
// and kgo.Dialer take.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	inner, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := newConn(d, inner)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns[c] = struct{}{}
	return c, nil
}

// Dial connects; with it a Dialer is a proxy.Dialer, which sarama takes as
// Config.Net.Proxy.Dialer.
func (d *Dialer) Dial(network, addr string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, addr)
}

// CutReply loses the n-th reply from now on (1 is the next) to requests that
// fulfil all matches, and closes its connection: the client reads io.EOF. The
// server has executed the request.
func (d *Dialer) CutReply(n int, matches ...Match) *Fault {
	return d.plan(newFault(cutReply, n, matches, 0))
}

// DropReply loses the n-th reply from now on to requests that fulfil all
// matches, and all that would follow it on its connection: the client reads
// nothing until its deadline or its own Close. The server has executed the
// request.
func (d *Dialer) DropReply(n int, matches ...Match) *Fault {
	return d.plan(newFault(dropReply, n, matches, 0))
}

// DelayReply holds the n-th reply from now on to requests that fulfil all
// matches for delay. A client whose deadline comes first sees a timeout.
func (d *Dialer) DelayReply(n int, delay time.Duration, matches ...Match) *Fault {
	return d.plan(newFault(delayReply, n, matches, delay))
}

// CutRequest loses the n-th request from now on that fulfils all matches, and
// closes its connection. The server has executed nothing, while the client
// sees what it sees after CutReply: the other half of "unknown". A request
// that is sent in several writes is judged by its first ones already.
func (d *Dialer) CutRequest(n int, matches ...Match) *Fault {
	return d.plan(newFault(cutRequest, n, matches, 0))
}

// Stall silences the connection of the n-th request from now on that fulfils
// all matches: for the time given nothing passes on it in either direction,
// this request included, and nothing closes it. New connections and all others
// work. Afterwards the bytes that waited pass in their order, as TCP sends them
// again, also those of a client that has closed the connection meanwhile: a
// request may then be executed long after its sender gave up. With [Forever]
// they are lost, and the connection stays silent.
func (d *Dialer) Stall(n int, long time.Duration, matches ...Match) *Fault {
	return d.plan(newFault(stallRequest, n, matches, long))
}

// StaleAll silences all connections that are open now for ever, and returns
// how many they are: what a failover leaves behind whose old address answers
// nobody, not even with a reset. New connections work.
func (d *Dialer) StaleAll() int {
	conns := d.open()
	for _, c := range conns {
		c.stall(Forever)
	}
	return len(conns)
}

// CutAll closes all connections that are open now, as the death of the server
// or of the network would.
func (d *Dialer) CutAll() {
	for _, c := range d.open() {
		c.cut()
	}
}

// open lists the connections that are open now.
func (d *Dialer) open() []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.conns))
}

// Open is the number of connections that are open now.
func (d *Dialer) Open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

func (d *Dialer) plan(f *Fault) *Fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, f)
	return f
}

// struck returns the fault of that sort which strikes the request, or nil. All
// faults count the request, also those that come too late for it.
func (d *Dialer) struck(request []byte, sort func(kind) bool) *Fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	var first *Fault
	for _, f := range d.faults {
		if sort(f.kind) && f.strikes(request) && first == nil {
			first = f
		}
	}
	return first
}

func (d *Dialer) forget(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}
