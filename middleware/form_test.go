package middleware_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/middleware"
)

func formed(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }

// csrf is outer middleware that looks for a token in the form.
func csrf(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("csrf") != "token" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func paid(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprint(w, "paid ", r.FormValue("amount"))
}

func TestForm_ParsedOutsideIsComparedAndReachesTheHandler(t *testing.T) {
	for name, c := range map[string]struct {
		pad  int
		edit func(*http.Request)
	}{
		"small":   {0, func(*http.Request) {}},
		"chunked": {0, chunked},
		"large":   {20 << 10, func(*http.Request) {}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rigOptions{}, paid)
			s := listen(t, csrf(g.handler))
			pay := func(amount string, replayed bool) (int, string) {
				form := url.Values{"amount": {amount}, "csrf": {"token"}, "pad": {strings.Repeat("p", c.pad)}}
				resp, body := sent(t, s, "k", form.Encode(), formed, c.edit)
				if (resp.header.Get("Idempotent-Replayed") == "true") != replayed {
					t.Errorf("amount %s: replayed %v, want %v", amount, !replayed, replayed)
				}
				return resp.status, body
			}
			if status, body := pay("1", false); status != 200 || body != "paid 1" {
				t.Errorf("first: %d %s", status, body)
			}
			if status, body := pay("2", false); status != 422 {
				t.Errorf("another amount: %d %s", status, body)
			}
			if status, body := pay("1", true); status != 200 || body != "paid 1" {
				t.Errorf("repeat: %d %s", status, body)
			}
			g.wantRuns(1)
		})
	}
}

func TestForm_ParsedOutsideIsAnotherPayloadThanItsRawBytes(t *testing.T) {
	g := newRig(t, rigOptions{}, paid)
	outside, inside := listen(t, csrf(g.handler)), listen(t, g.handler)
	const form = "amount=1&csrf=token"
	if resp, body := sent(t, outside, "k", form, formed); resp.status != 200 {
		t.Errorf("parsed: %d %s", resp.status, body)
	}
	if resp, body := sent(t, inside, "k", form, formed); resp.status != 422 {
		t.Errorf("raw: %d %s", resp.status, body)
	}
}

func TestForm_ParsedOutsideMayComeInAnotherOrder(t *testing.T) {
	g := newRig(t, rigOptions{}, paid)
	s := listen(t, csrf(g.handler))
	sent(t, s, "k", "amount=1&csrf=token&amount=2", formed)
	if resp, _ := sent(t, s, "k", "csrf=token&amount=1&amount=2", formed); resp.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("names in another order: %d", resp.status)
	}
	if resp, _ := sent(t, s, "k", "csrf=token&amount=2&amount=1", formed); resp.status != 422 {
		t.Errorf("values in another order: %d", resp.status)
	}
}

// upload is a multipart form. What stands behind its end counts as well.
func upload(t *testing.T, boundary, amount, fileName, content, behind string) (body string, edit func(*http.Request)) {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	err := m.SetBoundary(boundary)
	for _, field := range [][2]string{{"csrf", "token"}, {"amount", amount}} {
		err = errors.Join(err, m.WriteField(field[0], field[1]))
	}
	part, partErr := m.CreateFormFile("file", fileName)
	if err := errors.Join(err, partErr); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(part, content)
	if err := errors.Join(err, m.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String() + behind, header("Content-Type", m.FormDataContentType())
}

func TestForm_FilesParsedOutsideAreComparedByTheirContent(t *testing.T) {
	file := strings.Repeat("0123456789", 10<<10)
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) {
		opened, _, err := r.FormFile("file")
		if err != nil {
			t.Error(err)
			return
		}
		content, err := io.ReadAll(opened)
		_, _ = fmt.Fprint(w, r.FormValue("amount"), " ", len(content), " ", err)
	})
	for name, memory := range map[string]int64{"in memory": 10 << 20, "in a temporary file": 1} {
		t.Run(name, func(t *testing.T) {
			s := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := r.ParseMultipartForm(memory); err != nil {
					t.Error(err)
				}
				g.handler.ServeHTTP(w, r)
			}))
			send := func(boundary, amount, fileName, content, behind string) (reply, string) {
				body, edit := upload(t, boundary, amount, fileName, content, behind)
				return sent(t, s, strings.ReplaceAll(name, " ", "-"), body, edit)
			}
			if resp, body := send("one", "1", "a.txt", file, ""); resp.status != 200 || body != fmt.Sprintf("1 %d <nil>", len(file)) {
				t.Errorf("first: %d %s", resp.status, body)
			}
			if resp, _ := send("another", "1", "a.txt", file, ""); resp.header.Get("Idempotent-Replayed") != "true" {
				t.Errorf("another boundary: %d", resp.status)
			}
			for difference, s := range map[string][4]string{
				"amount":              {"2", "a.txt", file, ""},
				"content":             {"1", "a.txt", file[:len(file)-1] + "x", ""},
				"name":                {"1", "b.txt", file, ""},
				"behind the form":     {"1", "a.txt", file, strings.Repeat("x", 64<<10)},
				"length of the file":  {"1", "a.txt", file + "0", ""},
				"no content":          {"1", "a.txt", "", ""},
				"amount in its place": {file, "a.txt", "1", ""},
			} {
				if resp, body := send("one", s[0], s[1], s[2], s[3]); resp.status != 422 {
					t.Errorf("another %s: %d %.40s", difference, resp.status, body)
				}
			}
		})
	}
}

func TestForm_ParsedOutsideAboveTheLimitIs413(t *testing.T) {
	memory := idemtest.NewMemory(nil)
	g := newRig(t, rigOptions{store: memory, route: &middleware.IdempotencyOptions{MaxBody: 1000}}, paid)
	s := listen(t, csrf(g.handler))
	form := func(size int) string {
		const rest = "csrf=token&a="
		return rest + strings.Repeat("x", size-len(rest))
	}
	body, edit := upload(t, "b", "1", "a.txt", strings.Repeat("x", 1000), "")
	for name, do := range map[string]func() (reply, string){
		"values": func() (reply, string) { return sent(t, s, "k", form(1010), formed, chunked) },
		"many values": func() (reply, string) {
			return sent(t, s, "k", form(100)+strings.Repeat("&", 10)+strings.Repeat("&=", 1000), formed, chunked)
		},
		"file":         func() (reply, string) { return sent(t, s, "k", body, edit, chunked) },
		"as announced": func() (reply, string) { return sent(t, s, "k", form(1001), formed) },
	} {
		if resp, body := do(); resp.status != 413 || memory.Len() != 0 {
			t.Errorf("%s: %d %s, %d records", name, resp.status, body, memory.Len())
		}
	}
	if resp, body := sent(t, s, "k", form(1000), formed, chunked); resp.status != 200 {
		t.Errorf("just the limit: %d %s", resp.status, body)
	}
}

func TestForm_FileThatIsGoneIsRefused(t *testing.T) {
	memory := idemtest.NewMemory(nil)
	g := newRig(t, rigOptions{store: memory}, paid)
	s := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := r.ParseMultipartForm(1)
		if err := errors.Join(err, r.MultipartForm.RemoveAll()); err != nil {
			t.Error(err)
		}
		g.handler.ServeHTTP(w, r)
	}))
	body, edit := upload(t, "b", "1", "a.txt", strings.Repeat("x", 100<<10), "")
	if resp, answer := sent(t, s, "k", body, edit); resp.status != 500 || !strings.Contains(answer, "body-consumed") || memory.Len() != 0 {
		t.Errorf("%d %s, %d records", resp.status, answer, memory.Len())
	}
}

func TestForm_UnparsedBodyOfAnotherTypeStaysRaw(t *testing.T) {
	g := newRig(t, rigOptions{}, created)
	s := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.FormValue("csrf") // leaves an empty form and the body
		g.handler.ServeHTTP(w, r)
	}))
	json := header("Content-Type", "application/json")
	if resp, body := sent(t, s, "k", `{"amount":1}`, json); resp.status != 201 || body != `made {"amount":1}` {
		t.Errorf("%d %s", resp.status, body)
	}
	if resp, _ := sent(t, s, "k", `{"amount":2}`, json); resp.status != 422 {
		t.Errorf("another payload: %d", resp.status)
	}
}

func TestForm_OfPartsThatOuterMiddlewareHasReadItselfIsCompared(t *testing.T) {
	g := newRig(t, rigOptions{}, func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.MultipartForm.Value["amount"]) })
	s := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts, err := r.MultipartReader()
		if err != nil {
			t.Error(err)
			return
		}
		if r.MultipartForm, err = parts.ReadForm(1 << 20); err != nil {
			t.Error(err)
		}
		g.handler.ServeHTTP(w, r)
	}))
	pay := func(amount string) (reply, string) {
		body := "--b\r\nContent-Disposition: form-data; name=\"amount\"\r\n\r\n" + amount + "\r\n--b--\r\n"
		return sent(t, s, "k", body, header("Content-Type", "multipart/form-data; boundary=b"))
	}
	if resp, body := pay("1"); resp.status != 200 || body != "[1]" {
		t.Errorf("first: %d %s", resp.status, body)
	}
	if resp, body := pay("2"); resp.status != 422 {
		t.Errorf("another amount: %d %s", resp.status, body)
	}
}
