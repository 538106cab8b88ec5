package testenv_test

import (
	"fmt"
	"runtime"
	"testing"
)

// recorder is a test that notes its failures instead of failing.
type recorder struct {
	*testing.T
	errors  []string
	fatal   string
	skipped string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// run runs f where Fatalf ends it alone. Where f was skipped, so is the test: a
// server is missing. Whatever may end f stands inside of run: the test's own
// goroutine must end by the test's own means.
func (r *recorder) run(f func()) {
	r.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	if r.skipped != "" {
		r.T.Skip(r.skipped)
	}
}
