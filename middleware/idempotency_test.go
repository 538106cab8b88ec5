package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/stock"
)

func TestIdempotency_SecondRequestGetsTheFirstAnswerAndNothingRuns(t *testing.T) {
	g := newRig(t, rigOptions{}, created)
	g.wantAnswer(g.do(request("k", `{"a":1}`)), 201, `made {"a":1}`, false)
	w := g.do(request("k", `{"a":1}`))
	g.wantAnswer(w, 201, `made {"a":1}`, true)
	if got := w.Header().Get("Location"); got != "/orders/1" {
		t.Fatalf("Location %q", got)
	}
	g.wantRuns(1)
}

func TestIdempotency_OneOf100SimultaneousRequestsRunsAndOthersHearInFlight(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		created(w, r)
	})
	var first, others sync.WaitGroup
	first.Go(func() { g.do(request("k", "b")) })
	<-entered
	for range 99 {
		others.Go(func() {
			w := g.do(request("k", "b"))
			if w.Code != 409 || !strings.Contains(w.Body.String(), "urn:firstcome:in-flight") || w.Header().Get("Retry-After") == "" {
				t.Errorf("answer %d %s", w.Code, w.Body)
			}
			if w := g.do(request("k", "other")); w.Code != 422 {
				t.Errorf("another payload in flight: %d, want 422", w.Code)
			}
		})
	}
	others.Wait()
	close(leave)
	first.Wait()
	g.wantRuns(1)
}

func TestIdempotency_AnotherPayloadMethodPathOrQueryIsReuse(t *testing.T) {
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{Methods: []string{"POST", "PUT"}}}, created)
	g.wantAnswer(g.do(request("k", "b")), 201, "made b", false)
	for name, r := range map[string]*http.Request{
		"body":   request("k", "c"),
		"empty":  request("k", ""),
		"path":   request("k", "b", to("POST", "/refunds")),
		"escape": request("k", "b", to("POST", "/order%2Fs")),
		"query":  request("k", "b", to("POST", "/orders?x=1")),
		"method": request("k", "b", to("PUT", "/orders")),
	} {
		t.Run(name, func(t *testing.T) {
			w := g.do(r)
			wantProblem(t, w, 422, "urn:firstcome:key-reused")
		})
	}
	g.wantAnswer(g.do(request("k", "b")), 201, "made b", true)
	g.wantRuns(1)
}

func TestIdempotency_TwoPrincipalsWithOneKeyRunEach(t *testing.T) {
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("X-Buyer")) })
	for _, replayed := range []bool{false, true} {
		for _, name := range []string{"a", "b", "ak"} {
			g.wantAnswer(g.do(request("k", "b", header("X-Buyer", name))), 200, name, replayed)
		}
	}
	// The scope and the key never run together: "a"+"kk" is not "ak"+"k".
	g.wantAnswer(g.do(request("kk", "b", header("X-Buyer", "a"))), 200, "a", false)
	g.wantRuns(4)
}

func TestIdempotency_UnknownPrincipalIsRefusedAndNeverShared(t *testing.T) {
	g := newRig(t, rigOptions{}, created)
	g.wantProblem(g.do(request("k", "b", header("X-Buyer", ""))), 403, "no-principal")
	g.wantRuns(0)

	keeper, _ := idempotency.New(idemtest.NewMemory(nil), hashKey, idempotency.Rerun, nil)
	answers := map[string]func(*http.Request) (string, error){
		"urn:firstcome:no-principal": func(*http.Request) (string, error) { return "", nil },
		"urn:shop:login": func(*http.Request) (string, error) {
			return "", &middleware.Problem{Type: "urn:shop:login", Status: 401}
		},
	}
	for kind, scope := range answers {
		w := httptest.NewRecorder()
		middleware.Idempotency(keeper, scope, nil)(http.NotFoundHandler()).ServeHTTP(w, request("k", "b"))
		if !strings.Contains(w.Body.String(), kind) {
			t.Fatalf("answer %d %s, want %s", w.Code, w.Body, kind)
		}
	}
}

func TestIdempotency_MistakesShowAtStartUp(t *testing.T) {
	keeper, _ := idempotency.New(idemtest.NewMemory(nil), hashKey, idempotency.Rerun, nil)
	for name, build := range map[string]func(){
		"no keeper": func() { middleware.Idempotency(nil, buyer, nil) },
		"no scope":  func() { middleware.Idempotency(keeper, nil, nil) },
		"GET": func() {
			middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{Methods: []string{"GET"}})
		},
		"Set-Cookie": func() {
			middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{StoreHeaders: []string{"set-cookie"}})
		},
		"long keys":       func() { middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{MaxKeyLength: 256}) },
		"large answers":   func() { middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{MaxStored: 1 << 30}) },
		"bad link":        func() { middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{DocsURL: "a>\r\nb"}) },
		"no limiter":      func() { middleware.RateLimit(nil, noTakes, middleware.FailOpen, nil) },
		"no takes":        func() { middleware.RateLimit(fakeLimiter{}, nil, middleware.FailOpen, nil) },
		"no store policy": func() { middleware.RateLimit(fakeLimiter{}, noTakes, 0, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			build()
		}()
	}
}

func TestIdempotency_ReadingMethodsIgnoreTheKey(t *testing.T) {
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{Required: true}}, created)
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE"} {
		for range 2 {
			if w := g.do(request("k", "", to(method, "/orders"))); w.Code != 201 || w.Header().Get("Idempotent-Replayed") != "" {
				t.Fatalf("%s: %d", method, w.Code)
			}
		}
	}
	g.wantRuns(10)
}

func TestIdempotency_MissingKeyIsRefusedWithALinkWhereRequired(t *testing.T) {
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{Required: true, DocsURL: "https://shop.example/docs"}}, created)
	w := g.do(request("", "b"))
	g.wantProblem(w, 400, "key-missing")
	if got := w.Header().Get("Link"); got != `<https://shop.example/docs>; rel="describedby"` {
		t.Fatalf("Link %q", got)
	}
	w = g.do(request("a b", "b"))
	g.wantProblem(w, 400, "key-malformed")
	if w.Header().Get("Link") == "" {
		t.Fatal("no Link")
	}
	g.wantRuns(0)

	optional := newRig(t, rigOptions{}, created)
	optional.wantAnswer(optional.do(request("", "b")), 201, "made b", false)
	optional.wantAnswer(optional.do(request("", "b")), 201, "made b", false)
	optional.wantRuns(2)
}

func TestIdempotency_AnswersSettleTheKeyByKind(t *testing.T) {
	type answer = http.HandlerFunc
	status := func(code int, headers ...string) answer {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(code)
		}
	}
	problem := func(err error) answer {
		return func(w http.ResponseWriter, r *http.Request) {
			middleware.WriteError(w, r, fmt.Errorf("reserve: %w", err))
		}
	}
	const kept, free, unknown = "kept", "free", "unknown"
	cases := map[string]struct {
		answer answer
		want   string
	}{
		"nothing written":         {func(http.ResponseWriter, *http.Request) {}, kept},
		"200":                     {status(200), kept},
		"202 with Retry-After":    {status(202, "Retry-After", "1"), kept},
		"204":                     {status(204), kept},
		"303":                     {status(303, "Location", "/x"), kept},
		"404":                     {status(404), kept},
		"409 of the business":     {status(409), kept},
		"422":                     {status(422), kept},
		"no-store":                {status(200, "Cache-Control", "no-store"), kept},
		"400":                     {status(400), free},
		"401":                     {status(401), free},
		"403":                     {status(403), free},
		"429":                     {status(429), free},
		"409 with Retry-After":    {status(409, "Retry-After", "1"), free},
		"500":                     {status(500), unknown},
		"503 with Retry-After":    {status(503, "Retry-After", "1"), unknown},
		"sold out":                {problem(stock.ErrSoldOut), free},
		"all held":                {problem(&stock.AllHeldError{RetryAfter: time.Minute}), free},
		"buyer's limit":           {problem(&stock.LimitError{Remaining: 1}), free},
		"not open":                {problem(&stock.NotOpenError{RetryAfter: time.Hour}), free},
		"closed":                  {problem(stock.ErrClosed), kept},
		"too late":                {problem(stock.ErrTooLate), kept},
		"unknown SKU":             {problem(stock.ErrUnknownSKU), kept},
		"busy":                    {problem(stock.ErrBusy), free},
		"stock's outcome unknown": {problem(stock.ErrUnknown), unknown},
		"nothing happened": {func(w http.ResponseWriter, r *http.Request) {
			claim, _ := idempotency.FromContext(r.Context())
			claim.NothingHappened()
			w.WriteHeader(http.StatusNotFound)
		}, free},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rigOptions{refuse: true}, c.answer)
			first, second := g.do(request("k", "b")), g.do(request("k", "b"))
			replayed := second.Header().Get("Idempotent-Replayed") == "true"
			got := unknown
			switch {
			case replayed && g.runs.Load() == 1 && first.Code == second.Code && first.Body.String() == second.Body.String():
				got = kept
			case !replayed && g.runs.Load() == 2 && first.Code == second.Code:
				got = free
			case !strings.Contains(second.Body.String(), "outcome-unknown") || second.Header().Get("Retry-After") != "":
				t.Fatalf("second answer %d %s", second.Code, second.Body)
			}
			if got != c.want {
				t.Fatalf("the key is %s, want %s (%d then %d)", got, c.want, first.Code, second.Code)
			}
		})
	}
}

func TestIdempotency_ReplayHasTheAllowedHeadersOnlyAndNoneTwice(t *testing.T) {
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{StoreHeaders: []string{"X-Order"}}},
		func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			for _, name := range []string{"Location", "ETag", "Content-Type", "Content-Encoding", "X-Order"} {
				h.Set(name, "own")
			}
			h.Add("Link", "<a>")
			h.Add("Link", "<b>")
			for _, name := range []string{
				"Set-Cookie", "Date", "Traceparent", "X-Request-Id", "RateLimit", "RateLimit-Policy", "Www-Authenticate",
				"Connection", "Keep-Alive", "X-Other",
			} {
				h.Set(name, "secret")
			}
			h.Set("Content-Length", "4")
			_, _ = io.WriteString(w, "body")
		})
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "outer")
		w.Header().Set("X-Request-Id", "fresh")
		g.handler.ServeHTTP(w, r)
	})
	outer.ServeHTTP(httptest.NewRecorder(), request("k", "b"))
	for range 2 {
		w := httptest.NewRecorder()
		outer.ServeHTTP(w, request("k", "b"))
		want := http.Header{
			"Location": {"own"}, "Etag": {"own"}, "Content-Type": {"own"}, "Content-Encoding": {"own"}, "X-Order": {"own"},
			"Link": {"<a>", "<b>"}, "X-Request-Id": {"fresh"}, "Idempotent-Replayed": {"true"},
		}
		if got := fmt.Sprint(w.Header()); got != fmt.Sprint(want) {
			t.Fatalf("headers %s\nwant    %s", got, want)
		}
	}
	g.wantRuns(1)
}

func TestIdempotency_StoreDownAtClaimFailsClosed(t *testing.T) {
	g := newRig(t, rigOptions{}, created)
	g.store.claimDown.Store(true)
	w := g.do(request("k", "b"))
	g.wantProblem(w, 503, "unavailable")
	if w.Header().Get("Retry-After") == "" {
		t.Fatal("no Retry-After")
	}
	if strings.Contains(w.Body.String(), errDown.Error()) {
		t.Fatal("the answer tells the store's error")
	}
	g.wantRuns(0)
}

func TestIdempotency_StoreDownAtClaimFailsOpenOnlyByOptionAndSaysSo(t *testing.T) {
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{FailOpen: true}}, func(w http.ResponseWriter, r *http.Request) {
		if _, ok := idempotency.FromContext(r.Context()); ok {
			t.Error("there is a claim")
		}
		created(w, r)
	})
	g.store.claimDown.Store(true)
	w := g.do(request("k", "b"))
	g.wantAnswer(w, 201, "made b", false)
	if w.Header().Get("Idempotency-Bypassed") != "true" {
		t.Fatal("not said")
	}
}

func TestIdempotency_StoreDownAtCompletionSendsTheTrueAnswerAndTheKeyStaysTaken(t *testing.T) {
	g := newRig(t, rigOptions{}, created)
	g.store.settleDown.Store(true)
	g.wantAnswer(g.do(request("k", "b")), 201, "made b", false)
	g.wantProblem(g.do(request("k", "b")), 409, "in-flight")
	g.wantRuns(1)
}

func TestIdempotency_NothingIsSentBeforeTheResultIsStored(t *testing.T) {
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
		created(w, r)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		w.(http.Flusher).Flush()
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
	})
	w := &spy{ResponseRecorder: httptest.NewRecorder(), settles: g.store.settles.Load}
	g.handler.ServeHTTP(w, request("k", "b"))
	if w.early || w.Code != 201 || w.Flushed {
		t.Fatalf("early %v, status %d, flushed %v", w.early, w.Code, w.Flushed)
	}
}

// spy notices a write before the claim was settled.
type spy struct {
	*httptest.ResponseRecorder
	settles func() int64
	early   bool
}

func (s *spy) WriteHeader(code int) {
	s.early = s.early || s.settles() == 0
	s.ResponseRecorder.WriteHeader(code)
}

func (s *spy) Write(p []byte) (int, error) {
	s.early = s.early || s.settles() == 0
	return s.ResponseRecorder.Write(p)
}

func TestIdempotency_PanicSettlesAsUnknownAndContinues(t *testing.T) {
	for _, value := range []any{"boom", http.ErrAbortHandler} {
		g := newRig(t, rigOptions{}, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			panic(value)
		})
		for attempt := int64(1); attempt <= 2; attempt++ {
			w := httptest.NewRecorder()
			func() {
				defer func() {
					if got := recover(); got != value {
						t.Errorf("recovered %v, want %v", got, value)
					}
				}()
				g.handler.ServeHTTP(w, request("k", "b"))
			}()
			if w.Body.Len() > 0 {
				t.Fatalf("half an answer was sent: %q", w.Body)
			}
			g.wantRuns(attempt) // unknown, policy Rerun: the next runs, without waiting for the lease
		}
	}
}

func TestIdempotency_ClientThatHangsUpStillLeavesItsResult(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		created(w, r)
	})
	ctx, hangUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { g.do(request("k", "b").WithContext(ctx)) })
	<-entered
	hangUp()
	close(leave)
	wg.Wait()
	g.wantAnswer(g.do(request("k", "b")), 201, "made b", true)
	g.wantRuns(1)
}

func TestIdempotency_AnswerAboveTheCapFlowsAndNeverRunsAgain(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 10<<20)
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{MaxStored: 1000}}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		for chunk := large; len(chunk) > 0; chunk = chunk[1<<20:] {
			_, _ = w.Write(chunk[:1<<20])
		}
	})
	g.wantAnswer(g.do(request("k", "b")), 201, string(large), false)
	g.wantProblem(g.do(request("k", "b")), 409, "result-not-kept")
	g.wantProblem(g.do(request("k", "c")), 422, "key-reused")
	g.wantRuns(1)
}

func TestIdempotency_AnswerOfJustTheCapIsKept(t *testing.T) {
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{MaxStored: 8}}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "1234")
		_, _ = io.WriteString(w, "5678")
	})
	g.wantAnswer(g.do(request("k", "b")), 200, "12345678", false)
	g.wantAnswer(g.do(request("k", "b")), 200, "12345678", true)
}

func TestIdempotency_CopiedBodyIsStoredWhole(t *testing.T) {
	text := strings.Repeat("0123456789", 1000)
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, _ *http.Request) {
		if _, err := io.Copy(w, strings.NewReader(text)); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(g.handler) // whose writer is an io.ReaderFrom
	defer server.Close()
	for range 2 {
		r := request("k", "b")
		out, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/orders", strings.NewReader("b"))
		out.Header = r.Header
		resp, err := server.Client().Do(out)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(body) != text {
			t.Fatalf("%d bytes, want %d", len(body), len(text))
		}
	}
	g.wantRuns(1)
}

func TestIdempotency_StreamingRouteFlowsAtOnceAndIsNotKept(t *testing.T) {
	g := newRig(t, rigOptions{route: &middleware.IdempotencyOptions{Streaming: true}}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	})
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, request("k", "b"))
	if !w.Flushed || w.Body.String() != "data: 1\n\n" || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Fatalf("flushed %v, body %q", w.Flushed, w.Body)
	}
	g.wantProblem(g.do(request("k", "b")), 409, "result-not-kept")
	g.wantRuns(1)
}

func TestIdempotency_AnswerWithTrailersIsSentWholeAndNotKept(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"declared": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-Sum", "42")
		},
		"late": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "body")
			w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rigOptions{}, handler)
			server := httptest.NewServer(g.handler)
			defer server.Close()
			out, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/orders", strings.NewReader("b"))
			out.Header = request("k", "").Header
			resp, err := server.Client().Do(out)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.Trailer.Get("X-Sum") != "42" || resp.Header.Get("X-Sum") != "" {
				t.Fatalf("trailer %v, header %v", resp.Trailer, resp.Header)
			}
			g.wantProblem(g.do(request("k", "b")), 409, "result-not-kept")
		})
	}
}

func TestIdempotency_InformationalAnswersPass(t *testing.T) {
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
		w.WriteHeader(http.StatusTeapot) // superfluous
		_, _ = io.WriteString(w, "done")
	})
	w := &statuses{ResponseRecorder: httptest.NewRecorder()}
	g.handler.ServeHTTP(w, request("k", "b"))
	if fmt.Sprint(w.all) != "[103 202]" {
		t.Fatalf("statuses %v", w.all)
	}
	g.wantAnswer(g.do(request("k", "b")), 202, "done", true)
}

type statuses struct {
	*httptest.ResponseRecorder
	all []int
}

func (s *statuses) WriteHeader(code int) { s.all = append(s.all, code) }

func TestIdempotency_BodyReachesTheHandlerIntact(t *testing.T) {
	for _, size := range []int{0, 1, 16 << 10, 16<<10 + 1, 1 << 20} {
		body := strings.Repeat("é", size)[:size]
		g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
			got, err := io.ReadAll(r.Body)
			if err != nil || string(got) != body || r.ContentLength != int64(size) {
				t.Errorf("size %d: %d bytes, length %d, %v", size, len(got), r.ContentLength, err)
			}
		})
		chunked := request("k"+strconv.Itoa(size), body)
		chunked.ContentLength = -1
		g.wantAnswer(g.do(request("k"+strconv.Itoa(size), body)), 200, "", false)
		if size == 0 { // see TestBody_ReadOutsideAndNotPutBackIsRefusedAndLogged
			g.wantProblem(g.do(chunked), 411, "length-required")
			continue
		}
		g.wantAnswer(g.do(chunked), 200, "", true)
	}
}

func TestIdempotency_BodyAboveTheLimitIsRefusedAndLeavesNoClaim(t *testing.T) {
	memory := idemtest.NewMemory(nil)
	g := newRig(t, rigOptions{store: memory, route: &middleware.IdempotencyOptions{MaxBody: 100}}, created)
	endless := request("k", "")
	endless.Body, endless.ContentLength = io.NopCloser(zeros{}), -1
	g.wantProblem(g.do(endless), 413, "body-too-large")
	g.wantProblem(g.do(request("k", strings.Repeat("x", 101))), 413, "body-too-large")
	if memory.Len() != 0 {
		t.Fatal("a claim was left")
	}
	g.wantAnswer(g.do(request("k", strings.Repeat("x", 100))), 201, "made "+strings.Repeat("x", 100), false)
	g.wantRuns(1)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestIdempotency_AbortedUploadLeavesNoClaim(t *testing.T) {
	memory := idemtest.NewMemory(nil)
	g := newRig(t, rigOptions{store: memory}, created)
	for _, err := range []error{io.ErrUnexpectedEOF, fmt.Errorf("decode: %w", io.EOF)} {
		r := request("k", "")
		r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{err})), -1
		g.wantProblem(g.do(r), 400, "body-unreadable")
	}
	if memory.Len() != 0 {
		t.Fatal("a claim was left")
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestIdempotency_HandlerThatOutlivesTheLeaseKeepsItsClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(5 * time.Minute)
			created(w, r)
		})
		go g.do(request("k", "b"))
		for range 29 {
			time.Sleep(10 * time.Second)
			g.wantProblem(g.do(request("k", "b")), 409, "in-flight")
		}
		time.Sleep(11 * time.Second)
		g.wantAnswer(g.do(request("k", "b")), 201, "made b", true)
		g.wantRuns(1)
		if n := g.store.extends.Load(); n < 20 || n > 30 {
			t.Fatalf("%d heartbeats in 5 minutes with a lease of 30 s", n)
		}
	})
}

func TestIdempotency_ShortHandlerSendsNoHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) { time.Sleep(9 * time.Second) })
		g.do(request("k", "b"))
		time.Sleep(time.Hour)
		if n := g.store.extends.Load(); n != 0 {
			t.Fatalf("%d heartbeats", n)
		}
	})
}

func TestIdempotency_RawKeyAndScopeStandNowhere(t *testing.T) {
	const canary = "canary-7f3a"
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
		claim, _ := idempotency.FromContext(r.Context())
		if strings.Contains(fmt.Sprintf("%v %+v %#v", claim.ID(), claim.Holder(), claim), canary) {
			t.Error("the claim prints it")
		}
	})
	for _, r := range []*http.Request{
		request(canary, "b", header("X-Buyer", canary)),
		request(canary, "c", header("X-Buyer", canary)),
		request(canary+" ", "b"), request(canary+"\x01", "b"), request(`"`+canary, "b"), request(`"`+canary+`";p=1`, "b"),
	} {
		w := g.do(r)
		if strings.Contains(w.Body.String()+fmt.Sprint(w.Header()), canary) {
			t.Fatalf("answer %s %v", w.Body, w.Header())
		}
	}
}

func TestIdempotency_ClaimTellsFirstAndRerun(t *testing.T) {
	var ids []idempotency.ClaimID
	var firsts []bool
	var starts []time.Time
	codes := []int{429, 500, 201}
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
		claim, ok := idempotency.FromContext(r.Context())
		if !ok {
			t.Fatal("no claim")
		}
		w.WriteHeader(codes[len(ids)])
		ids, firsts, starts = append(ids, claim.ID()), append(firsts, claim.First()), append(starts, claim.Started())
	})
	for range 4 {
		g.do(request("k", "b"))
	}
	g.wantRuns(3)
	if ids[0] != ids[1] || ids[1] != ids[2] || !starts[0].Equal(starts[2]) || fmt.Sprint(firsts) != "[true false false]" {
		t.Fatalf("ids %v, started %v, first %v", ids, starts, firsts)
	}
}
