package middleware

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/firstcome/firstcome/idempotency"
)

func FuzzStored_AnyBytesAreAnAnswerOrCorrupt(f *testing.F) {
	f.Add(StoredResponse(201, http.Header{"Location": {"/a"}, "Link": {"<a>", "<b>"}}, []byte("body")))
	f.Add([]byte{})
	f.Add([]byte{2, 0, 200, 0})
	f.Fuzz(func(t *testing.T, stored []byte) {
		w := httptest.NewRecorder()
		err := replay(w, stored)
		switch {
		case err == nil && w.Header().Get(replayedHeader) != "true":
			t.Fatal("a replay without its marker")
		case err != nil && (!errors.Is(err, idempotency.ErrCorrupt) || len(w.Header()) > 0 || w.Body.Len() > 0):
			t.Fatalf("error %v after something was written", err)
		}
	})
}

func TestStored_NewerVersionOrDamageIsRefusedClearly(t *testing.T) {
	good := StoredResponse(201, http.Header{"Location": {"/a"}}, []byte("body"))
	newer := append([]byte{storedVersion + 1}, good[1:]...)
	secret := appendStored(nil, 200, http.Header{"Set-Cookie": {"a=b"}}, nil, nil, []string{"Set-Cookie"})
	for name, stored := range map[string][]byte{
		"empty": {}, "newer": newer, "cut": good[:8], "no status": {1, 0, 0, 0}, "forbidden header": secret,
	} {
		if err := replay(httptest.NewRecorder(), stored); !errors.Is(err, idempotency.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}
