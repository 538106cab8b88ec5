package app

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
)

func TestTheRedisClientIsTunedAsTheStoresWant(t *testing.T) {
	opts, err := redis.ParseURL("redis://" + testenv.Mini(t).Options().Addr + "?read_timeout=1s")
	if err != nil {
		t.Fatal(err)
	}
	tune(opts)
	client := redis.NewClient(opts)
	defer func() { _ = client.Close() }()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	o := client.Options()
	if !o.ContextTimeoutEnabled || o.ReadTimeout.Seconds() != 1 || o.WriteTimeout != redisTimeout || o.DialTimeout != redisTimeout {
		t.Errorf("the client has %v, %v, %v", o.ReadTimeout, o.WriteTimeout, o.DialTimeout)
	}
}

func TestARedisClientWithTLSSpeaksTLS(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	first := make(chan byte, 1)
	go func() {
		conn, err := plain.Accept()
		if err != nil {
			return
		}
		var b [1]byte
		_, _ = conn.Read(b[:])
		_ = conn.Close()
		first <- b[0]
	}()
	opts := &redis.Options{TLSConfig: &tls.Config{ServerName: "redis.example", MinVersion: tls.VersionTLS12}}
	tune(opts)
	if conn, err := opts.Dialer(t.Context(), "tcp", plain.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("a server without TLS was taken")
	}
	if b := <-first; b != 22 {
		t.Errorf("the first byte is %d, want a TLS handshake", b)
	}
}
