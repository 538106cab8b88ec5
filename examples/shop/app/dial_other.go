//go:build !linux

package app

import (
	"net"
	"time"
)

// newDialer leaves it to keep-alive probes to find a dead connection, which takes
// some minutes where there is no TCP_USER_TIMEOUT.
func newDialer(timeout time.Duration) *net.Dialer { return &net.Dialer{Timeout: timeout} }
