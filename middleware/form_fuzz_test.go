package middleware

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"reflect"
	"testing"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
)

// formOf makes a parsed form: values from a query, and a file under each of
// names, from one to the next cut of content.
func formOf(t *testing.T, query, names, content string) (*http.Request, string) {
	t.Helper()
	values, _ := url.ParseQuery(query) // what of it can be read
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for i := range len(names) {
		header := textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + url.QueryEscape(names[i:i+1]) + `"; filename="` + url.QueryEscape(names[i:]) + `"`}}
		part, err := m.CreatePart(header)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte(content[min(i, len(content)):])); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	form := &multipart.Form{}
	if len(names) > 0 {
		var err error
		if form, err = multipart.NewReader(&b, m.Boundary()).ReadForm(1 << 20); err != nil {
			t.Skip(err) // too many parts
		}
	}
	files := names
	if len(names) > 0 { // content counts as far as there are files for it
		files += "\x00" + content
	}
	return &http.Request{PostForm: values, MultipartForm: form}, files
}

func FuzzForm_TwoAreWrittenAlikeOnlyIfTheyAreAlikeAndNeverOneAsAnothersBeginning(f *testing.F) {
	f.Add("a=1", "", "", "a=2", "", "")
	f.Add("a=1&b=2", "", "", "b=2&a=1", "", "")
	f.Add("a=1&a=2", "", "", "a=2&a=1", "", "")
	f.Add("a=1b", "", "", "a1=b", "", "")
	f.Add("a=1&b=2", "", "", "a=1&b=2&b=", "", "")
	f.Add("a=", "", "", "", "a", "")
	f.Add("a=%00%01%02", "", "", "a=%00&%01=%02", "", "")
	f.Add("", "ab", "xyz", "", "aa", "xyz")
	f.Add("", "a", "xy", "a=xy", "", "")
	f.Fuzz(func(t *testing.T, query1, names1, content1, query2, names2, content2 string) {
		one, files1 := formOf(t, query1, names1, content1)
		two, files2 := formOf(t, query2, names2, content2)
		a, err1 := encodeForm(one, 1<<20)
		b, err2 := encodeForm(two, 1<<20)
		if err1 != nil || err2 != nil {
			t.Skip("too large")
		}
		alike := reflect.DeepEqual(one.PostForm, two.PostForm) && files1 == files2
		if bytes.Equal(a, b) != alike {
			t.Errorf("alike: %v; written %q and %q", alike, a, b)
		}
		if !alike && (bytes.HasPrefix(a, b) || bytes.HasPrefix(b, a)) {
			t.Errorf("one begins as the other: %q and %q", a, b)
		}
		if again, err := encodeForm(one, 1<<20); err != nil || !bytes.Equal(a, again) {
			t.Errorf("written twice: %q and %q, %v", a, again, err)
		}
	})
}

func TestForm_NeverHasTheFingerprintOfBytesOrOfAFormOfAnotherFile(t *testing.T) {
	keeper, err := idempotency.New(idemtest.NewMemory(nil), []byte("a test key of thirty-two bytes.."), idempotency.Rerun, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := formOf(t, "amount=1", "f", "content")
	r.Method, r.URL = http.MethodPost, &url.URL{Path: "/orders"}
	form, err := encodeForm(r, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	parsed, raw := payload{form: form, parsed: true}, payload{body: form}
	if parsed.fingerprint(keeper, r) == raw.fingerprint(keeper, r) {
		t.Error("a form is taken for the bytes by which it is written")
	}
	r.MultipartForm.File["f"][0].Filename = "another"
	if renamed, err := encodeForm(r, 1<<20); err != nil || string(renamed) == string(form) {
		t.Errorf("the file's name is not written, %v", err)
	}
}
