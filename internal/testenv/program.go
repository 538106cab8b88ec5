package testenv

import (
	"fmt"
	"os"
	"sync"
)

// Program is the [TB] of a program that is no test. A server that is missing
// or fails ends it, with status 1.
type Program struct {
	name string

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

// NewProgram begins a program that uses servers; its Close ends them.
func NewProgram(name string) *Program {
	Begin()
	p := &Program{name: name}
	if err := checkDemands(); err != nil {
		p.Fatalf("%v", err)
	}
	return p
}

// Close ends what the program has started.
func (p *Program) Close() {
	p.mu.Lock()
	cleanups := p.cleanups
	p.cleanups = nil
	p.mu.Unlock()
	for i := len(cleanups) - 1; i >= 0; i-- {
		cleanups[i]()
	}
	End()
}

// Helper does nothing.
func (p *Program) Helper() {}

// Name is the program's name.
func (p *Program) Name() string { return p.name }

// Logf prints to standard error.
func (p *Program) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, p.name+": "+format+"\n", args...)
}

// Errorf prints to standard error and marks the program as failed.
func (p *Program) Errorf(format string, args ...any) {
	p.mu.Lock()
	p.failed = true
	p.mu.Unlock()
	p.Logf(format, args...)
}

// Fatalf prints to standard error and ends the program with status 1.
func (p *Program) Fatalf(format string, args ...any) {
	p.Errorf(format, args...)
	p.Close()
	os.Exit(1)
}

// Skipf is Fatalf: a program without its server has nothing to do.
func (p *Program) Skipf(format string, args ...any) { p.Fatalf(format, args...) }

// Failed reports whether Errorf was called.
func (p *Program) Failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// Cleanup has step run by Close.
func (p *Program) Cleanup(step func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, step)
}
