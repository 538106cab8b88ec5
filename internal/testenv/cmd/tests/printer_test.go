package main

import (
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"m/a"}
{"Action":"output","Package":"m/a","Test":"TestOne","Output":"=== RUN   TestOne\n"}
{"Action":"output","Package":"m/a","Test":"TestOne","Output":"    one_test.go:1: testenv: redis-server not found\n"}
{"Action":"skip","Package":"m/a","Test":"TestOne"}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"testenv: tests skipped for a missing server: 3 (java, redis-server)\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t(cached)\n"}
{"Action":"pass","Package":"m/a"}
{"Action":"output","Package":"m/none","Output":"?   \tm/none\t[no test files]\n"}
{"Action":"skip","Package":"m/none"}
{"Action":"output","Package":"m/b","Test":"TestGood","Output":"--- PASS: TestGood\n"}
{"Action":"pass","Package":"m/b","Test":"TestGood"}
{"Action":"output","Package":"m/b","Test":"TestBad","Output":"    bad_test.go:1: why\n"}
{"Action":"fail","Package":"m/b","Test":"TestBad"}
{"Action":"output","Package":"m/b","Test":"TestHung","Output":"panic: test timed out\n"}
{"Action":"output","Package":"m/b","Output":"testenv: tests skipped for a missing server: 2 (postgres)\n"}
{"Action":"output","Package":"m/b","Output":"FAIL\tm/b\t0.1s\n"}
{"Action":"fail","Package":"m/b"}
{"ImportPath":"m/c","Action":"build-output","Output":"c.go:1:1: no\n"}
{"Action":"output","Package":"m/c","Output":"FAIL\tm/c [build failed]\n"}
{"Action":"fail","Package":"m/c"}
no event
`

const printed = `ok  	m/a	(cached)
?   	m/none	[no test files]
    bad_test.go:1: why
panic: test timed out
testenv: tests skipped for a missing server: 2 (postgres)
FAIL	m/b	0.1s
c.go:1:1: no
FAIL	m/c [build failed]
no event

5 tests of 2 packages were skipped for missing servers (java, postgres, redis-server); ` + "`make servers-install`" + ` installs them.
`

func TestPrinter_PrintsWhatGoTestPrintsAndTheSumOfWhatWasSkipped(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	p := printer{w: &b, packages: map[string]*lines{}}
	if err := p.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	p.summary()
	if b.String() != printed {
		t.Errorf("printed:\n%s\nwant:\n%s", b.String(), printed)
	}
}

func TestPrinter_SaysNothingWhereNothingWasMissing(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	p := printer{w: &b}
	p.summary()
	if b.String() != "" {
		t.Errorf("printed %q", b.String())
	}
}
