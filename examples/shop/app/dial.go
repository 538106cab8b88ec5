package app

import (
	"cmp"
	"crypto/tls"
	"time"

	"github.com/redis/go-redis/v9"
)

// The times of the Redis client, which lie inside of those of the stores that
// use it (docs/design.md, "Timeouts nest"). What the URL says goes first.
const (
	redisTimeout = 2 * time.Second
	// deadAfter is how long the kernel keeps a connection whose packets nobody
	// acknowledges: after a failover, or a firewall that forgot it.
	deadAfter = 3 * time.Second
)

// tune sets what the stores want of their client.
func tune(opts *redis.Options) {
	opts.ContextTimeoutEnabled = true
	opts.DialTimeout = cmp.Or(opts.DialTimeout, redisTimeout)
	opts.ReadTimeout = cmp.Or(opts.ReadTimeout, redisTimeout)
	opts.WriteTimeout = cmp.Or(opts.WriteTimeout, redisTimeout)
	dialer := newDialer(opts.DialTimeout)
	opts.Dialer = dialer.DialContext
	if opts.TLSConfig != nil {
		opts.Dialer = (&tls.Dialer{NetDialer: dialer, Config: opts.TLSConfig}).DialContext
	}
}
