package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"
)

// Ports are taken from below the range from which the kernel gives outgoing
// connections theirs. So a killed server finds its port still free when it is
// restarted.
const (
	firstPort = 15_000
	lastPort  = 30_000
)

var ports struct {
	mu    sync.Mutex
	given map[int]bool
}

// FreePort returns a loopback TCP port on which nothing listens and which this
// process has not given away before.
func FreePort(t TB) int {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return port
}

func freePort() (int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.given == nil {
		ports.given = make(map[int]bool)
	}
	for range 1000 {
		// Drawn by chance, so that test binaries running side by side rarely
		// meet; if they do, the server says so and another port is tried.
		port := firstPort + rand.IntN(lastPort-firstPort)
		if ports.given[port] {
			continue
		}
		// Asked by a call rather than by listening: a child that is being
		// started elsewhere in this process would hold such a listener open
		// for a moment.
		conn, err := net.DialTimeout("tcp", loopback(port), time.Second)
		if err == nil {
			_ = conn.Close()
			continue
		}
		ports.given[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("no free port from %d to %d", firstPort, lastPort)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
