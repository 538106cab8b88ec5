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

// run runs f where Fatalf and Skipf end it alone.
func (r *recorder) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}
