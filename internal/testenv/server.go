package testenv

import (
	"fmt"
	"sync"
)

// Server is what can be told to every server of this package.
type Server interface {
	// Addr is host:port.
	Addr() string
	// URL is the address in the form that the shop's flags take.
	URL() string
	// Stop freezes the server: connections stay open, nothing answers.
	Stop()
	// Cont lets a stopped server go on.
	Cont()
	// Kill ends the server at once (kill -9) and waits until it is gone.
	Kill()
	// Restart starts the server again on the same port and folder, and waits
	// until it is ready. One that still runs is killed first.
	Restart()
	// Output is the latest part of what the server has printed.
	Output() string
}

var (
	_ Server = (*RedisServer)(nil)
	_ Server = (*PostgresServer)(nil)
	_ Server = (*KafkaServer)(nil)
	_ Server = (*MariaDBServer)(nil)
)

// shared is a server that all tests of a binary use together.
type shared struct {
	mu      sync.Mutex
	started bool
	server  *process
	err     error
}

// controls are t's of the shared server, which start starts on first use.
func (s *shared) controls(t TB, start func() (*process, error)) Controls {
	t.Helper()
	needMain(t)
	server, err := s.get(start)
	need(t, err)
	return Controls{t: t, process: server, shared: true}
}

// get returns the server. One that could not be started is not tried again:
// each test would wait for it in vain.
func (s *shared) get(start func() (*process, error)) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return s.server, s.err
	}
	s.started = true
	s.server, s.err = start()
	if s.err != nil {
		return nil, s.err
	}
	atEnd(func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.started = false
		return s.server.end()
	})
	return s.server, nil
}

// own are the controls of a server that start starts for t alone.
func own(t TB, start func() (*process, error)) Controls {
	t.Helper()
	needMain(t)
	server, err := start()
	need(t, err)
	return private(t, server)
}

// need turns an error of a start into a skipped or failed test.
func need(t TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if missing, ok := err.(*missingError); ok && !RequireServers() { //nolint:errorlint // never wrapped: finding comes before starting
		absent.note(t, missing)
		t.Skipf("testenv: %v", missing)
	}
	t.Fatalf("testenv: %v", err)
}

// serve starts a server, which prepare sets up, up to three times, each time
// in a fresh folder and on another port: another process may take a port
// between our asking for it and the server's.
func serve(name string, prepare func(dir string, port int) (*process, error)) (server *process, err error) {
	for range 3 {
		server, err = serveOnce(name, prepare)
		if err == nil {
			return server, nil
		}
	}
	return nil, fmt.Errorf("three tries: %w", err)
}

func serveOnce(name string, prepare func(dir string, port int) (*process, error)) (*process, error) {
	dir, err := folder(name)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p, err := prepare(dir, port)
	if err != nil {
		return nil, err
	}
	p.dir, p.port = dir, port
	return p, p.start()
}
