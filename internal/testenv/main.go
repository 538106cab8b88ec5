package testenv

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

// roleVariable names the role that a re-executed test binary plays.
const roleVariable = "FIRSTCOME_TESTENV_ROLE"

// Role is another main function inside a test binary: [Command] runs the
// binary again as that role, so that a test can kill -9 its own code.
type Role struct {
	// Name is what Command asks for; unique within a binary.
	Name string
	// Main runs instead of the tests. The process exits with status 1 when
	// it returns an error, which is printed.
	Main func() error
}

// Main runs the tests of a binary, ends the servers they started, and exits.
// Every test binary that uses a real server or [Start] calls it:
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
func Main(m *testing.M, roles ...Role) {
	os.Exit(Wrap(m, roles...).Run())
}

// Tests is a [testing.M] that ends the servers after the last test.
type Tests struct{ m *testing.M }

// Wrap is [Main] for those who want to do more around the run, such as
//
//	goleak.VerifyTestMain(testenv.Wrap(m))
//
// It does not return in a process that was started to play one of the roles.
func Wrap(m *testing.M, roles ...Role) *Tests {
	if name := os.Getenv(roleVariable); name != "" {
		os.Exit(play(name, roles))
	}
	return &Tests{m: m}
}

// Run runs the tests and returns the exit code. It says at the end how many were
// skipped for a missing server.
func (w *Tests) Run() int {
	if err := checkDemands(); err != nil {
		fmt.Fprintf(os.Stderr, "testenv: %v\n", err)
		return 2
	}
	Begin()
	defer End()
	code := w.m.Run()
	absent.report(os.Stdout)
	return code
}

func play(name string, roles []Role) int {
	for _, role := range roles {
		if role.Name != name {
			continue
		}
		if err := role.Main(); err != nil {
			fmt.Fprintf(os.Stderr, "role %s: %v\n", name, err)
			return 1
		}
		return 0
	}
	fmt.Fprintf(os.Stderr, "no role is named %q\n", name)
	return 2
}

// begun is true between Begin and End. Servers are refused outside of it,
// since nobody would clean up after them.
var begun atomic.Bool

// endings are what End has to do, in the order in which it was asked for.
var endings struct {
	mu    sync.Mutex
	steps []func() error
}

// Begin is the first half of [Main], for programs that are no tests. It also
// sweeps up the folders of earlier processes that were killed.
func Begin() {
	begun.Store(true)
	sweep()
}

// End is the second half of [Main]: it ends all servers that are still
// running and removes their folders. Calling it twice is harmless.
func End() {
	begun.Store(false)
	endings.mu.Lock()
	steps := endings.steps
	endings.steps = nil
	endings.mu.Unlock()

	var err error
	for i := len(steps) - 1; i >= 0; i-- { // last started, first ended
		err = errors.Join(err, steps[i]())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "testenv: ending: %v\n", err)
	}
}

// atEnd has step run by End.
func atEnd(step func() error) {
	endings.mu.Lock()
	defer endings.mu.Unlock()
	endings.steps = append(endings.steps, step)
}

// needMain stops a test whose binary would leave servers behind.
func needMain(t TB) {
	t.Helper()
	if !begun.Load() {
		t.Fatalf("testenv: this test binary needs `func TestMain(m *testing.M) { testenv.Main(m) }`")
	}
}

// LeakOptions make goleak overlook the goroutines of this package that live
// as long as the shared servers do, and one of go-redis that outlives its
// client: it looks for a server that refuses connections, and sleeps for a second
// before it sees that its pool was closed.
//
//	defer goleak.VerifyNone(t, testenv.LeakOptions()...)
func LeakOptions() []goleak.Option {
	const pkg = "github.com/firstcome/firstcome/internal/testenv."
	return []goleak.Option{
		goleak.IgnoreAnyFunction(pkg + "spawner"),
		goleak.IgnoreAnyFunction(pkg + "(*run).watch"),
		goleak.IgnoreAnyFunction(pkg + "(*output).read"),
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"),
	}
}
