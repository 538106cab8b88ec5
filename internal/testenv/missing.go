package testenv

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
)

// missingError says which server cannot run here and what brings it.
type missingError struct {
	what string // the program or file that was not found
	by   string // the command that installs it
}

func (e *missingError) Error() string {
	return fmt.Sprintf("%s not found; install it with `make servers-install` (%s)", e.what, e.by)
}

// SkippedPrefix begins the line by which a test binary says at its end what was
// missing, before the number of tests and the names:
//
//	testenv: tests skipped for a missing server: 12 (java, redis-server)
const SkippedPrefix = "testenv: tests skipped for a missing server: "

// absence is what was missing in this process, and for how many tests.
type absence struct {
	mu    sync.Mutex
	tests int
	names []string
}

var absent absence

// note counts a test that is about to be skipped. Programs are no tests.
func (a *absence) note(t TB, e *missingError) {
	if _, test := t.(testing.TB); !test {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tests++
	if !slices.Contains(a.names, e.what) {
		a.names = append(a.names, e.what)
	}
}

// report writes the line, if anything was missing. `go test` shows it with -v,
// or where it runs one package, or where a test failed.
func (a *absence) report(w io.Writer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tests == 0 {
		return
	}
	slices.Sort(a.names)
	_, _ = fmt.Fprintf(w, "%s%d (%s)\n", SkippedPrefix, a.tests, strings.Join(a.names, ", "))
}
