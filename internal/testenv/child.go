package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Process is a child process of a test: a role of the test binary, a built
// example, anything.
type Process struct{ Controls }

// Start starts cmd, which must not have been started, and ends it with the
// test. Its standard output and error are captured together. Restart runs the
// same command again.
func Start(t TB, cmd *exec.Cmd) *Process {
	t.Helper()
	needMain(t)
	p := newProcess(filepath.Base(cmd.Path), cmd, readiness{}, syscall.SIGKILL)
	if err := p.start(); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return &Process{Controls: private(t, p)}
}

// WaitLine waits up to a minute for the latest run to print a line that
// contains substring, and returns the line. It ends the test if none comes,
// at once if the process is gone; so it belongs in the test's own goroutine.
func (p *Process) WaitLine(substring string) string {
	p.t.Helper()
	line, err := p.process.waitLine(substring, startTimeout)
	if err != nil {
		p.t.Fatalf("testenv: %v; the last lines:\n%s", err, p.process.out.tail(40))
	}
	return line
}

// Terminate asks the process to end (SIGTERM) and waits up to grace. It
// returns nil if the process ended in time with status 0.
func (p *Process) Terminate(grace time.Duration) error {
	if err := p.process.signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.Wait(grace)
}

// Wait waits up to timeout for the process to end by itself. It returns nil if
// it ended in time with status 0, and an *exec.ExitError on another status.
func (p *Process) Wait(timeout time.Duration) error {
	r := p.process.current()
	if !r.wait(timeout) {
		return fmt.Errorf("%s did not end within %s", p.process.name, timeout)
	}
	<-r.drained // Output is whole now
	if r.err != nil {
		return fmt.Errorf("%s: %w", p.process.name, r.err)
	}
	return nil
}

// Command returns the command that runs this test binary again as one of the
// roles given to [Main], with extra environment variables ("NAME=value").
func Command(t TB, role string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("testenv: find the test binary: %v", err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	return cmd
}

// builds keeps each program that was built, by its package.
var builds struct {
	mu   sync.Mutex
	done map[string]func() (string, error)
}

// Build builds the program of a package, given as for `go build` ("./examples/shop"
// as seen from the module's root, or an import path), once per test binary,
// and returns the path of the executable.
func Build(t TB, pkg string) string {
	t.Helper()
	needMain(t)
	builds.mu.Lock()
	if builds.done == nil {
		builds.done = make(map[string]func() (string, error))
		atEnd(func() error {
			builds.mu.Lock()
			defer builds.mu.Unlock()
			builds.done = nil // the executables go with the folder
			return nil
		})
	}
	once := builds.done[pkg]
	if once == nil {
		once = sync.OnceValues(func() (string, error) { return build(pkg) })
		builds.done[pkg] = once
	}
	builds.mu.Unlock()
	path, err := once()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return path
}

func build(pkg string) (string, error) {
	dir, err := folder("build")
	if err != nil {
		return "", err
	}
	module, err := moduleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Dir = module
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return path, nil
}

// moduleRoot finds the folder of go.mod above the working folder, which for a
// test is its package's.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working folder")
		}
		dir = parent
	}
}
