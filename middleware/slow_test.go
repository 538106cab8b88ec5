package middleware_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/middleware"
)

// start serves h on a server that edit has set up.
func start(t *testing.T, h http.Handler, edit func(*httptest.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	edit(s)
	if s.EnableHTTP2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

const slowHead = "POST /orders HTTP/1.1\r\nHost: x\r\nX-Buyer: a\r\nIdempotency-Key: k\r\n"

// trickle sends a byte now and then until the connection takes no more.
func (c *raw) trickle(bytes string) {
	for {
		if _, err := io.WriteString(c.Conn, bytes); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestBody_ThatTricklesIsRefusedInTimeAndTheConnectionClosed(t *testing.T) {
	const short, never = 200 * time.Millisecond, time.Hour
	for name, c := range map[string]struct {
		head, bytes         string
		timeout, serverRead time.Duration
		duplex              bool
	}{
		"announced":               {"Content-Length: 100000\r\n\r\n", "x", short, never, false},
		"chunked":                 {"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", short, never, false},
		"by the server's timeout": {"Content-Length: 100000\r\n\r\n", "x", never, short, false},
		"after 100 Continue":      {"Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n", "x", short, never, false},
		// Here net/http by itself would take what follows for another request.
		"in full duplex": {"Content-Length: 100000\r\n\r\n", "x", short, never, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			memory := idemtest.NewMemory(nil)
			g := newRig(t, rigOptions{store: memory, route: &middleware.IdempotencyOptions{BodyTimeout: c.timeout}}, created)
			s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.duplex {
					_ = http.NewResponseController(w).EnableFullDuplex()
				}
				g.handler.ServeHTTP(w, r)
			}), func(s *httptest.Server) { s.Config.ReadTimeout = c.serverRead })
			conn := dial(t, s)
			begin := time.Now()
			conn.write(slowHead + c.head)
			go conn.trickle(c.bytes)
			resp := conn.answer()
			if resp.status == http.StatusContinue {
				resp = conn.answer()
			}
			if resp.status != 408 || !resp.closed {
				t.Errorf("%d, Connection %q", resp.status, resp.header.Get("Connection"))
			}
			if took := time.Since(begin); took < 150*time.Millisecond || took > patience {
				t.Errorf("answered after %v", took)
			}
			if _, err := conn.r.ReadByte(); err == nil || isTimeout(err) {
				t.Errorf("the connection stays open: %v", err)
			}
			g.wantRuns(0)
			if memory.Len() != 0 {
				t.Error("a claim was left")
			}
		})
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestBody_ThatIsTooLargeAndTricklesIsRefusedAllTheSame(t *testing.T) {
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{MaxBody: 10}}, created)
	for name, head := range map[string]string{
		"announced": "Content-Length: 100000\r\n\r\n",
		"chunked":   "Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, start(t, g.handler, func(*httptest.Server) {}))
			conn.write(slowHead + head)
			go conn.trickle("1\r\nx\r\n")
			if resp := conn.answer(); resp.status != 413 {
				t.Errorf("%d", resp.status)
			}
		})
	}
}

// A deadline that stays would end the handler's context, and the connection.
func TestBody_ItsTimeoutHarmsNeitherTheHandlerNorTheNextRequestOfTheConnection(t *testing.T) {
	const timeout = 150 * time.Millisecond
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{BodyTimeout: timeout}}, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			t.Errorf("the handler's context ends: %v", r.Context().Err())
		case <-time.After(3 * timeout):
		}
		created(w, r)
	})
	conn := dial(t, start(t, g.handler, func(*httptest.Server) {}))
	for i := range 2 {
		conn.write(fmt.Sprintf("POST /orders HTTP/1.1\r\nHost: x\r\nX-Buyer: a\r\nIdempotency-Key: k%d\r\nContent-Length: 4\r\n\r\n", i))
		time.Sleep(timeout / 3)
		conn.write("body")
		if resp := conn.answer(); resp.status != 201 || resp.closed {
			t.Fatalf("request %d: %d, closed %v", i, resp.status, resp.closed)
		}
		time.Sleep(2 * timeout)
	}
	g.wantRuns(2)
}

// On HTTP/2 only the stream ends: others of the connection go on.
func TestBody_ThatTricklesOnHTTP2IsRefusedAlone(t *testing.T) {
	var opened atomic.Int64
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{BodyTimeout: 200 * time.Millisecond}}, created)
	s := start(t, g.handler, func(s *httptest.Server) {
		s.EnableHTTP2 = true
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				opened.Add(1)
			}
		}
	})
	slow, feed := io.Pipe()
	defer func() { _ = feed.Close() }()
	go func() {
		for {
			if _, err := feed.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	resp, answer := sent(t, s, "slow", "", func(r *http.Request) { r.Body, r.ContentLength = slow, -1 })
	if resp.status != 408 || resp.proto != 2 {
		t.Errorf("HTTP/%d: %d %s", resp.proto, resp.status, answer)
	}
	if resp, _ := sent(t, s, "k", "body"); resp.status != 201 {
		t.Errorf("the next: %d", resp.status)
	}
	if opened.Load() != 1 {
		t.Errorf("%d connections", opened.Load())
	}
	g.wantRuns(1)
}

func TestBody_SlowBehindAWriterWithoutDeadlinesIsRefusedWhenItHasComeAndLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log levels
		memory := idemtest.NewMemory(nil)
		g := newRig(t, rigOptions{store: memory, route: &middleware.IdempotencyOptions{Logger: slog.New(&log)}}, created)
		slow := func(key string, d time.Duration) *http.Request {
			r := request(key, "")
			r.Body, r.ContentLength = io.NopCloser(&pause{d: d, rest: "body"}), 4
			return r
		}
		g.wantAnswer(g.do(slow("k", 29*time.Second)), 201, "made body", false)
		begin := time.Now()
		g.wantProblem(g.do(slow("other", 31*time.Second)), 408, "body-timeout")
		if took := time.Since(begin); took != 31*time.Second {
			t.Errorf("answered after %v", took)
		}
		if memory.Len() != 1 || len(log.all) != 1 || log.all[0] != slog.LevelWarn {
			t.Errorf("%d records, log %v", memory.Len(), log.all)
		}
		g.wantRuns(1)
	})
}

// pause is a body that takes its time.
type pause struct {
	d    time.Duration
	rest string
}

func (p *pause) Read(buf []byte) (int, error) {
	time.Sleep(p.d)
	p.d = 0
	n := copy(buf, p.rest)
	p.rest = p.rest[n:]
	if p.rest == "" {
		return n, io.EOF
	}
	return n, nil
}

// deadlines is a writer that takes read deadlines.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { panic("a decoder") }

// Outer middleware may recover, and the connection then serves other requests.
func TestBody_WhoseReaderPanicsLeavesNoDeadlineForLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, rigOptions{}, created)
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		r := request("k", "")
		r.Body, r.ContentLength = io.NopCloser(broken{}), 4
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			g.handler.ServeHTTP(w, r)
		}()
		time.Sleep(time.Hour)
		if len(w.set) > 0 {
			t.Errorf("deadlines are set: %v", w.set)
		}
	})
}
