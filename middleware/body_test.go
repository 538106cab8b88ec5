package middleware_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/middleware"
)

// unpack is outer middleware that decompresses bodies and leaves the length as
// it came, as widespread ones do.
func unpack(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		unpacked, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(unpacked)
		next.ServeHTTP(w, r)
	})
}

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// listen serves h on a real connection; sent is a POST with a key to it.
func listen(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func sent(t *testing.T, s *httptest.Server, key, body string, edits ...func(*http.Request)) (reply, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/orders", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = request(key, "").Header
	for _, edit := range edits {
		edit(r)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return replied(resp), string(answer)
}

// reply is an answer whose body has been read.
type reply struct {
	status, proto   int
	header, trailer http.Header
	closed          bool // the connection with it
}

func replied(resp *http.Response) reply {
	return reply{resp.StatusCode, resp.ProtoMajor, resp.Header, resp.Trailer, resp.Close}
}

func chunked(r *http.Request) { r.ContentLength = -1 }

func TestBody_UnpackedOutsideReachesTheHandlerWholeAndWithItsTrueLength(t *testing.T) {
	for _, size := range []int{1, 10, 1000, 100_000} {
		text := strings.Repeat("x", size)
		g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || string(body) != text || r.ContentLength != int64(size) || r.Header.Get("Content-Length") != fmt.Sprint(size) {
				t.Errorf("%d bytes: handler reads %d, length %d, header %s, %v", size, len(body), r.ContentLength, r.Header.Get("Content-Length"), err)
			}
		})
		outside := http.Header{}
		s := listen(t, unpack(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			outside = r.Header
			g.handler.ServeHTTP(w, r)
		})))
		if resp, _ := sent(t, s, "k", packed(t, text)); resp.status != 200 {
			t.Errorf("%d bytes: %d", size, resp.status)
		}
		if got := outside.Get("Content-Length"); got != fmt.Sprint(len(packed(t, text))) {
			t.Errorf("outer middleware finds its header changed: %s", got)
		}
	}
}

func TestBody_UnpackedOutsideIsComparedBehindTheAnnouncedLengthToo(t *testing.T) {
	g := newRig(t, rigOptions{}, created)
	s := listen(t, unpack(g.handler))
	text := strings.Repeat("x", 5000)
	one, two := packed(t, text+"1"), packed(t, text+"2")
	if len(one) != len(two) {
		t.Fatalf("%d and %d bytes", len(one), len(two))
	}
	if resp, _ := sent(t, s, "k", one); resp.status != 201 {
		t.Errorf("first: %d", resp.status)
	}
	if resp, body := sent(t, s, "k", two); resp.status != 422 {
		t.Errorf("another payload: %d %.30s", resp.status, body)
	}
	if resp, _ := sent(t, s, "k", one); resp.status != 201 || resp.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("repeat: %d", resp.status)
	}
}

func TestBody_UnpackedOutsideToMoreThanTheLimitIs413(t *testing.T) {
	memory := idemtest.NewMemory(nil)
	g := newRig(t, rigOptions{store: memory, route: &middleware.IdempotencyOptions{MaxBody: 64 << 10}}, created)
	s := listen(t, unpack(g.handler))
	resp, body := sent(t, s, "k", packed(t, strings.Repeat("x", 10<<20)))
	if resp.status != 413 || memory.Len() != 0 {
		t.Errorf("%d %s, %d records", resp.status, body, memory.Len())
	}
}

func TestBody_UploadThatEndsEarlyLeavesNoClaim(t *testing.T) {
	for name, half := range map[string]string{
		"announced": "Content-Length: 50\r\n\r\nhalf",
		"chunked":   "Transfer-Encoding: chunked\r\n\r\n32\r\nhalf",
	} {
		t.Run(name, func(t *testing.T) {
			memory := idemtest.NewMemory(nil)
			g := newRig(t, rigOptions{store: memory}, created)
			conn := dial(t, listen(t, g.handler))
			conn.write("POST /orders HTTP/1.1\r\nHost: x\r\nX-Buyer: a\r\nIdempotency-Key: k\r\n" + half)
			if err := conn.Conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if resp := conn.answer(); resp.status != 400 || memory.Len() != 0 {
				t.Errorf("%d, %d records", resp.status, memory.Len())
			}
			g.wantRuns(0)
		})
	}
}

// raw is a connection on which each byte is the test's own.
type raw struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func dial(t *testing.T, s *httptest.Server) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &raw{Conn: conn, t: t, r: bufio.NewReader(conn)}
}

func (c *raw) write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer, to its end.
func (c *raw) answer() reply {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		c.t.Fatal(err)
	}
	return replied(resp)
}

func TestBody_ReadOutsideAndNotPutBackIsRefusedAndLogged(t *testing.T) {
	swallow := func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	for name, c := range map[string]struct {
		outer  func(http.ResponseWriter, *http.Request)
		edit   func(*http.Request)
		status int
		kind   string
		level  slog.Level
	}{
		"read":       {swallow, func(*http.Request) {}, 500, "body-consumed", slog.LevelError},
		"replaced":   {func(_ http.ResponseWriter, r *http.Request) { r.Body = http.NoBody }, func(*http.Request) {}, 500, "body-consumed", slog.LevelError},
		"closed":     {func(_ http.ResponseWriter, r *http.Request) { _ = r.Body.Close() }, func(*http.Request) {}, 500, "body-consumed", slog.LevelError},
		"chunked":    {swallow, chunked, 411, "length-required", slog.LevelWarn},
		"empty form": {func(_ http.ResponseWriter, r *http.Request) { swallow(nil, r); _ = r.ParseForm() }, formed, 500, "body-consumed", slog.LevelError},
		"reader of parts": {func(_ http.ResponseWriter, r *http.Request) {
			parts, err := r.MultipartReader()
			if err != nil {
				t.Error(err)
				return
			}
			for part, err := parts.NextPart(); err == nil; part, err = parts.NextPart() {
				_ = part.Close()
			}
		}, header("Content-Type", "multipart/form-data; boundary=b"), 500, "body-consumed", slog.LevelError},
	} {
		t.Run(name, func(t *testing.T) {
			var log levels
			memory := idemtest.NewMemory(nil)
			g := newRig(t, rigOptions{store: memory, route: &middleware.IdempotencyOptions{Logger: slog.New(&log)}}, created)
			s := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.outer(w, r)
				g.handler.ServeHTTP(w, r)
			}))
			for _, amount := range []string{"1", "2"} {
				body := "--b\r\nContent-Disposition: form-data; name=\"amount\"\r\n\r\n" + amount + "\r\n--b--\r\n"
				resp, answer := sent(t, s, "k", body, c.edit)
				if resp.status != c.status || !strings.Contains(answer, c.kind) {
					t.Errorf("amount %s: %d %s", amount, resp.status, answer)
				}
			}
			g.wantRuns(0)
			if memory.Len() != 0 || len(log.all) != 1 || log.all[0] != c.level {
				t.Errorf("%d records, log %v, want one line at %v", memory.Len(), log.all, c.level)
			}
		})
	}
}

// levels notes the level of each line.
type levels struct {
	slog.Handler
	all []slog.Level
}

func (*levels) Enabled(context.Context, slog.Level) bool { return true }

func (l *levels) Handle(_ context.Context, r slog.Record) error {
	l.all = append(l.all, r.Level)
	return nil
}

func TestBody_EmptyOneNeedsNoLength(t *testing.T) {
	g := newRig(t, rigOptions{}, created)
	s := listen(t, g.handler)
	for _, replayed := range []string{"", "true"} {
		resp, body := sent(t, s, "k", "")
		if resp.status != 201 || body != "made " || resp.header.Get("Idempotent-Replayed") != replayed {
			t.Errorf("%d %s", resp.status, body)
		}
	}
}

func TestBody_TurnawayAndAdmissionReadItAndSoDoesTheHandler(t *testing.T) {
	for name, look := range map[string]func(*http.Request) string{
		"raw": func(r *http.Request) string {
			body, _ := io.ReadAll(r.Body)
			return string(body)
		},
		"form": func(r *http.Request) string { return "amount=" + r.FormValue("amount") },
	} {
		t.Run(name, func(t *testing.T) {
			var seen []string
			g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{
				Turnaway: func(r *http.Request, body []byte) error {
					seen = append(seen, string(body), look(r))
					return nil
				},
				Admission: func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						seen = append(seen, look(r))
						next.ServeHTTP(w, r)
					})
				},
			}}, func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				seen = append(seen, string(body))
			})
			s := listen(t, g.handler)
			for key, edit := range map[string]func(*http.Request){"announced": func(*http.Request) {}, "chunked": chunked} {
				seen = nil
				sent(t, s, key, "amount=1", formed, edit)
				if want := "[amount=1 amount=1 amount=1 amount=1]"; fmt.Sprint(seen) != want {
					t.Errorf("%s: seen %v, want %s", key, seen, want)
				}
			}
		})
	}
}

func TestBody_WhoseBeginningOuterMiddlewareHasReadIsRefused(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		g := newRig(t, rigOptions{}, created)
		s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 10))
			g.handler.ServeHTTP(w, r)
		}), func(s *httptest.Server) { s.EnableHTTP2 = http2 })
		for _, body := range []string{"amount=001;to=x", "amount=999;to=x"} {
			if resp, answer := sent(t, s, "k", body); resp.status != 500 {
				t.Errorf("HTTP/2 %v, %s: %d %s", http2, body, resp.status, answer)
			}
		}
		g.wantRuns(0)
	}
}
