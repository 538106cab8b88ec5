package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// dialTimeout bounds one attempt to connect.
const dialTimeout = 5 * time.Second

// target is the server under load.
type target struct {
	base   *url.URL
	host   string // for the Host header
	addr   string // host:port to dial
	secure bool
}

func parseTarget(raw string) (target, error) {
	base, err := url.Parse(raw)
	if err != nil {
		return target{}, fmt.Errorf("-url: %w", err)
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Hostname() == "" {
		return target{}, fmt.Errorf("-url %q: must look like http://127.0.0.1:8080", raw)
	}
	if base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return target{}, fmt.Errorf("-url %q: must have no user, query or fragment", base.Redacted())
	}
	base.Path = strings.TrimRight(base.Path, "/")
	port := base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[base.Scheme]
	}
	return target{
		base:   base,
		host:   base.Host,
		addr:   net.JoinHostPort(base.Hostname(), port),
		secure: base.Scheme == "https",
	}, nil
}

// local refuses an address off this machine: a load generator that goes where a
// mistyped URL points is somebody else's outage.
func (t target) local(ctx context.Context) error {
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, t.base.Hostname())
	if err != nil {
		return fmt.Errorf("-url: %w", err)
	}
	for _, addr := range addrs {
		if !addr.IP.IsLoopback() {
			return fmt.Errorf("-url: %s is not on this machine; if it is yours to load, say -remote", t.base.Hostname())
		}
	}
	return nil
}

// dial opens one connection, which ends with ctx.
func (t target) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	if t.secure {
		return (&tls.Dialer{NetDialer: &dialer, Config: &tls.Config{
			ServerName: t.base.Hostname(), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		}}).DialContext(ctx, "tcp", t.addr)
	}
	return dialer.DialContext(ctx, "tcp", t.addr)
}

// explainDial adds what a person can do about a refused connection.
func (t target) explainDial(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && !op.Timeout() {
		return fmt.Errorf("%w (is the shop running at %s?)", err, t.base)
	}
	return err
}
