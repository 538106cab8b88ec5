package faulty

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"time"
)

// far is the trip beside which a proxy's own cost is not worth measuring.
const far = 20 * time.Millisecond

// ownCost is what a proxy of that trip takes longer than it: the lower
// quartile, which work of others on the machine moves little.
func ownCost(trip time.Duration) (time.Duration, error) {
	if trip > far {
		return 0, nil
	}
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = echo.Close() }()
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	proxy, err := newProxy(echo.Addr().String(), trip)
	if err != nil {
		return 0, err
	}
	through, err := echoTime(proxy.Addr())
	if err = errors.Join(err, proxy.Close()); err != nil {
		return 0, err
	}
	direct, err := echoTime(echo.Addr().String())
	return max(through-direct-trip, 0), err
}

// echoTime is how long a byte takes to a server that sends it back, and back.
func echoTime(addr string) (time.Duration, error) {
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	var took [40]time.Duration
	for i := range took {
		begin := time.Now()
		if _, err := conn.Write([]byte{1}); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			return 0, err
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took[:])
	return took[len(took)/4], nil
}
