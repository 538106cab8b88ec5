package middleware_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/firstcome/firstcome/middleware"
)

// behind is a handler behind outer middleware that sets headers before it.
func behind(h http.Handler, headers ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		h.ServeHTTP(w, r)
	})
}

func TestOutside_TrailerAnnouncedThereLeavesReplayOn(t *testing.T) {
	g := newRig(t, rigOptions{}, created)
	s := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		behind(g.handler, "Trailer", "Server-Timing", http.TrailerPrefix+"X-Sum", "1").ServeHTTP(w, r)
		w.Header().Set("Server-Timing", "app;dur=1")
	}))
	for _, replayed := range []string{"", "true"} {
		resp, body := sent(t, s, "k", "b")
		if resp.status != 201 || body != "made b" || resp.header.Get("Idempotent-Replayed") != replayed {
			t.Errorf("%d %s", resp.status, body)
		}
		if resp.trailer.Get("Server-Timing") != "app;dur=1" || resp.trailer.Get("X-Sum") != "1" {
			t.Errorf("trailers %v", resp.trailer)
		}
	}
	g.wantRuns(1)
}

func TestOutside_TrailersOfTheHandlerBesideThoseFromThereAreNotKept(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"another":         func(w http.ResponseWriter, _ *http.Request) { w.Header().Add("Trailer", "X-Own") },
		"the same":        func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Trailer", "X-Sum") },
		"not declared":    func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(http.TrailerPrefix+"X-Own", "1") },
		"the same, later": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(http.TrailerPrefix+"X-Sum", "1") },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rigOptions{}, handler)
			h := behind(g.handler, "Trailer", "X-Sum", http.TrailerPrefix+"X-Sum", "1")
			serve(h, request("k", "b"))
			g.wantProblem(serve(h, request("k", "b")), 409, "result-not-kept")
		})
	}
}

func TestOutside_RetryAfterSetThereFreesNoKey(t *testing.T) {
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) })
	h := behind(g.handler, "Retry-After", "1")
	serve(h, request("k", "b"))
	g.wantAnswer(serve(h, request("k", "b")), 409, "", true)
	g.wantRuns(1)
}

func TestOutside_HeadersSetThereAreSaidAnewAndNotKept(t *testing.T) {
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		created(w, r)
	})
	serve(behind(g.handler, "Expires", "today", "Cache-Control", "public"), request("k", "b"))
	w := serve(behind(g.handler, "Expires", "tomorrow"), request("k", "b"))
	g.wantAnswer(w, 201, "made b", true)
	if w.Header().Get("Expires") != "tomorrow" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", w.Header())
	}
	if w := serve(g.handler, request("k", "b")); w.Header()["Expires"] != nil {
		t.Errorf("headers %v", w.Header())
	}
}

// compress is outer middleware that says so before the handler runs, as
// widespread ones do.
func compress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer func() { _ = z.Close() }()
		next.ServeHTTP(compressor{w, z}, r)
	})
}

type compressor struct {
	http.ResponseWriter
	z *gzip.Writer
}

func (c compressor) Write(p []byte) (int, error) { return c.z.Write(p) }

func TestOutside_CompressionFitsEachClientWhicheverCameFirst(t *testing.T) {
	refuse := func(w http.ResponseWriter, r *http.Request) {
		middleware.WriteError(w, r, &middleware.Problem{Type: "urn:shop:no", Status: http.StatusConflict})
	}
	for name, handler := range map[string]http.HandlerFunc{"an answer": created, "a problem": refuse} {
		for _, order := range [][]string{{"gzip", "identity", "gzip"}, {"identity", "gzip", "identity"}} {
			t.Run(name+" to "+order[0], func(t *testing.T) {
				g := newRig(t, rigOptions{}, handler)
				s := listen(t, compress(g.handler))
				var first string
				for _, encoding := range order {
					resp, body := sent(t, s, "k", "b", header("Accept-Encoding", encoding))
					if resp.header.Get("Content-Encoding") == "gzip" != (encoding == "gzip") {
						t.Errorf("%s: Content-Encoding %q", encoding, resp.header.Get("Content-Encoding"))
					}
					if encoding == "gzip" {
						body = unpacked(t, body)
					}
					if first == "" {
						first = body
					}
					if body != first || body == "" {
						t.Errorf("%s: %q, want %q", encoding, body, first)
					}
				}
				g.wantRuns(1)
			})
		}
	}
}

func unpacked(t *testing.T, text string) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		t.Error(err)
		return ""
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Error(err)
	}
	return string(out)
}
