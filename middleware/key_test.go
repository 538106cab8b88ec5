package middleware

import (
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

// keyTable is the table of the package comment.
var keyTable = map[string]struct {
	lines []string
	key   string // empty: 400
}{
	"quoted":               {[]string{`"abc"`}, "abc"},
	"bare":                 {[]string{`abc`}, "abc"},
	"spaces around":        {[]string{"  abc\t"}, "abc"},
	"bare digits":          {[]string{`8e03978e-40d5-43dd-bc93-6894a57f9324`}, "8e03978e-40d5-43dd-bc93-6894a57f9324"},
	"escaped quote":        {[]string{`"a\"b"`}, `a"b`},
	"escaped backslash":    {[]string{`"a\\b"`}, `a\b`},
	"quoted comma":         {[]string{`"a,b;c"`}, `a,b;c`},
	"255 bytes":            {[]string{strings.Repeat("k", 255)}, strings.Repeat("k", 255)},
	"255 bytes quoted":     {[]string{`"` + strings.Repeat("k", 255) + `"`}, strings.Repeat("k", 255)},
	"256 bytes":            {[]string{strings.Repeat("k", 256)}, ""},
	"1 MiB":                {[]string{strings.Repeat("k", 1<<20)}, ""},
	"empty":                {[]string{``}, ""},
	"blank":                {[]string{` `}, ""},
	"quoted empty":         {[]string{`""`}, ""},
	"parameters":           {[]string{`"abc";p=1`}, ""},
	"bare parameters":      {[]string{`abc;p=1`}, ""},
	"bare list":            {[]string{`a,b`}, ""},
	"quoted list":          {[]string{`"a", "b"`}, ""},
	"two lines":            {[]string{`a`, `b`}, ""},
	"the same line twice":  {[]string{`a`, `a`}, ""},
	"unclosed":             {[]string{`"abc`}, ""},
	"quote inside":         {[]string{`a"b`}, ""},
	"backslash inside":     {[]string{`a\b`}, ""},
	"text after quotes":    {[]string{`"abc"def`}, ""},
	"bad escape":           {[]string{`"a\b"`}, ""},
	"space inside":         {[]string{`a b`}, ""},
	"space inside quotes":  {[]string{`"a b"`}, ""},
	"control":              {[]string{"a\x01b"}, ""},
	"NUL":                  {[]string{"a\x00b"}, ""},
	"DEL":                  {[]string{"a\x7fb"}, ""},
	"newline in quotes":    {[]string{"\"a\nb\""}, ""},
	"not ASCII":            {[]string{"schlüssel"}, ""},
	"not ASCII in quotes":  {[]string{`"schlüssel"`}, ""},
	"bytes, not a string":  {[]string{`"`}, ""},
	"quotes within quotes": {[]string{`""abc""`}, ""},
}

func TestKey_TableOfAcceptedForms(t *testing.T) {
	for name, c := range keyTable {
		t.Run(name, func(t *testing.T) {
			key, err := parseKey(http.Header{keyHeader: c.lines}, maxKeySize)
			if key != c.key || (err == nil) != (c.key != "") {
				t.Fatalf("key %q, error %v, want %q", key, err, c.key)
			}
		})
	}
	if key, err := parseKey(http.Header{}, maxKeySize); key != "" || err != nil {
		t.Fatalf("no header: key %q, error %v", key, err)
	}
}

func FuzzKey(f *testing.F) {
	for _, c := range keyTable {
		f.Add(c.lines[0])
	}
	f.Fuzz(func(t *testing.T, line string) {
		key, err := parseKey(http.Header{keyHeader: {line}}, maxKeySize)
		if err != nil {
			if key != "" {
				t.Fatalf("key %q with error %v", key, err)
			}
			if long := strings.Trim(line, ` "`); len(long) > 8 && strings.Contains(err.Error(), long) {
				t.Fatalf("the error quotes the client: %v", err)
			}
			return
		}
		if key == "" || len(key) > maxKeySize || !utf8.ValidString(key) {
			t.Fatalf("key %q", key)
		}
		// The quoted form of what was accepted is the same key.
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		same, err := parseKey(http.Header{keyHeader: {quoted}}, maxKeySize)
		if err != nil || same != key {
			t.Fatalf("%q is %q, but quoted %q, %v", line, key, same, err)
		}
	})
}
