package faulty

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Proxy is a TCP proxy on loopback in front of one server, which makes it as
// far away as another machine: each byte arrives half a round trip later, in
// both directions. Throughput is not limited: what is under way meanwhile does
// not wait for what went before.
//
//	proxy, err := faulty.NewProxy(server.Addr(), time.Millisecond)
//	client := redis.NewClient(&redis.Options{Addr: proxy.Addr()})
//
// What passing the bytes on costs, some 0.1 ms for a round trip on an idle
// machine, is measured at the start and taken off, so that the median is near
// what was asked for; less than that cost can't be added. On Linux it sleeps by
// a timer of the kernel, since Go's own wake an idle program after a whole
// millisecond at the earliest; elsewhere a round trip under 2 ms comes out longer.
type Proxy struct {
	listener net.Listener
	server   string
	half     time.Duration // that bytes are held in one direction
	ctx      context.Context
	cancel   context.CancelFunc
	all      sync.WaitGroup
}

// NewProxy starts a proxy that adds trip to each round trip to the server,
// after it has measured its own cost for some dozens of trips. [Proxy.Close]
// ends it.
func NewProxy(server string, trip time.Duration) (*Proxy, error) {
	cost, err := ownCost(trip)
	if err != nil {
		return nil, fmt.Errorf("faulty: proxy: %w", err)
	}
	return newProxy(server, max(trip-cost, 0))
}

func newProxy(server string, trip time.Duration) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("faulty: proxy: %w", err)
	}
	p := &Proxy{listener: listener, server: server, half: trip / 2}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.all.Go(p.accept)
	return p, nil
}

// Addr is where clients reach the server through the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends the proxy and its connections.
func (p *Proxy) Close() error {
	p.cancel()
	err := p.listener.Close()
	p.all.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("faulty: proxy: %w", err)
	}
	return nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.join(client) })
	}
}

// join carries bytes between a client and the server until either ends.
func (p *Proxy) join(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(p.ctx, "tcp", p.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	stop := context.AfterFunc(p.ctx, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { p.carry(server, client) })
	both.Go(func() { p.carry(client, server) })
	both.Wait()
}

// parcel is some bytes that are under way.
type parcel struct {
	bytes []byte
	due   time.Time
}

// underWay bounds the parcels of one direction: beyond it the sender waits, as
// it does where a receiver does not read.
const underWay = 4096

// carry brings what comes from one side to the other, half a round trip later.
// When one side ends, the other is told so, as late.
func (p *Proxy) carry(to, from net.Conn) {
	parcels := make(chan parcel, underWay)
	var delivery sync.WaitGroup
	delivery.Go(func() {
		defer func() { _ = to.Close() }()
		alarm := newAlarm()
		defer alarm.close()
		for next := range parcels {
			alarm.wait(next.due)
			if _, err := to.Write(next.bytes); err != nil {
				_ = from.Close() // the reader below ends by it, and with it this loop
			}
		}
	})
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			parcels <- parcel{append([]byte(nil), buffer[:n]...), time.Now().Add(p.half)}
		}
		if err != nil {
			break
		}
	}
	close(parcels)
	delivery.Wait()
}
