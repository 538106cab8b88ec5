package testenv

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// RedisFailover is a pair behind one address, as a proxy gives it: its client
// speaks to whichever of the two is in charge.
type RedisFailover struct {
	*RedisPair
	Client *redis.Client

	addr atomic.Value // of the one in charge
}

// NewRedisFailover starts a pair as [NewRedisPair] does. Primary is in charge.
func NewRedisFailover(t TB, conf ...string) *RedisFailover {
	t.Helper()
	f := &RedisFailover{RedisPair: NewRedisPair(t, conf...)}
	f.addr.Store(f.Primary.Addr())
	f.Client = f.Primary.Client(t, func(o *redis.Options) {
		o.Dialer = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, f.addr.Load().(string))
		}
	})
	return f
}

// FailOver puts the replica in charge, which lacks all that lost has written, and
// ends the test if the client does not come to speak to it.
func (f *RedisFailover) FailOver(t TB, lost func()) {
	t.Helper()
	f.WaitInSync(t)
	f.Replica.Stop()
	f.CutLink(t)
	lost()
	f.Primary.Kill()
	f.Replica.Cont()
	f.Promote(t)
	f.addr.Store(f.Replica.Addr())
	err := eventually(func() error {
		info, err := f.Client.InfoMap(context.Background(), "replication").Result()
		if role := info["Replication"]["role"]; err == nil && role != "master" {
			err = fmt.Errorf("it speaks to a %q", role)
		}
		return err
	})
	if err != nil {
		t.Fatalf("testenv: no failover: %v", err)
	}
}
