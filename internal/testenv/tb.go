package testenv

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// TB is the part of [testing.TB] that this package uses, so that a program
// (cmd/servers) can start the same servers without a test.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

var names atomic.Int64

// Name returns a short name that no other test of this binary gets: letters,
// digits and dashes, starting with a letter. It serves as a key prefix, a
// topic, a stream or an SKU on a shared server.
func Name(t TB) string {
	var b strings.Builder
	for _, r := range strings.ToLower(t.Name()) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		}
		if b.Len() == 24 {
			break
		}
	}
	return fmt.Sprintf("t%d-%s", names.Add(1), b.String())
}
