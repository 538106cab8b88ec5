package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 60 * time.Second // for a server to say that it is ready, on a busy machine
	endTimeout   = 10 * time.Second // for a process to be gone after its last signal
)

var errNotRunning = errors.New("not running")

// process is a command that can be started more than once; each start is a
// run. It reports errors; [Controls] turns them into test failures.
type process struct {
	name     string
	template *exec.Cmd // never started itself
	ready    readiness
	last     syscall.Signal // how it is ended when nobody needs it any more
	out      *output

	// Of a server only: its folder, and where it listens on loopback.
	dir  string
	port int

	mu  sync.Mutex
	run *run // the latest one; nil before the first
}

// readiness is how a process shows that it is ready: a part of a line that it
// prints, or a probe. Without either it is ready at once. Either must tell it
// from another process that happens to listen on the same port.
type readiness struct {
	line  string
	probe func() bool
	then  func(pid int) // done at each start, as soon as it is ready; nil is nothing
}

// run is one life of a process.
type run struct {
	cmd     *exec.Cmd
	first   int           // number of the first line that it may have printed
	exited  chan struct{} // closed once it is gone
	drained chan struct{} // closed once all of its output is read
	err     error         // how it ended; valid after exited
}

func newProcess(name string, template *exec.Cmd, ready readiness, last syscall.Signal) *process {
	return &process{name: name, template: template, ready: ready, last: last, out: newOutput()}
}

// current returns the latest run, or nil.
func (p *process) current() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// alive returns the run that has not ended, or errNotRunning.
func (p *process) alive() (*run, error) {
	r := p.current()
	if r == nil || r.over() {
		return nil, fmt.Errorf("%s: %w", p.name, errNotRunning)
	}
	return r, nil
}

// start begins a new run and waits until it is ready.
func (p *process) start() error {
	if _, err := p.alive(); err == nil {
		return fmt.Errorf("%s: already running", p.name)
	}
	r, err := p.launch()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.mu.Lock()
	p.run = r
	p.mu.Unlock()
	if err := p.waitReady(r); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w\n%s", p.name, err, p.out.tail(30)), p.kill())
	}
	if p.ready.then != nil {
		p.ready.then(r.cmd.Process.Pid)
	}
	return nil
}

func (p *process) waitReady(r *run) error {
	if p.ready.line != "" {
		_, err := p.waitLine(p.ready.line, startTimeout)
		return err
	}
	if p.ready.probe == nil {
		return nil
	}
	ended := false
	err := until(startTimeout, func() bool {
		ended = r.over()
		return ended || p.ready.probe()
	})
	if ended {
		<-r.drained
		return fmt.Errorf("ended before it was ready: %w", r.err)
	}
	return err
}

func (p *process) launch() (*run, error) {
	// The child writes into a pipe of ours rather than one of os/exec, so that
	// waiting for it does not wait for grandchildren that hold its output.
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := clone(p.template)
	cmd.Stdout, cmd.Stderr = writer, writer
	cmd.SysProcAttr = childAttributes(cmd.SysProcAttr)
	first := p.out.end()
	err = spawn(cmd)
	_ = writer.Close()
	if err != nil {
		_ = reader.Close()
		return nil, err
	}
	r := &run{cmd: cmd, first: first, exited: make(chan struct{}), drained: make(chan struct{})}
	go p.out.read(reader, r.drained)
	go r.watch()
	return r, nil
}

// clone copies what was set before the start: an exec.Cmd is for one start.
func clone(cmd *exec.Cmd) *exec.Cmd {
	return &exec.Cmd{
		Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir,
		ExtraFiles: cmd.ExtraFiles, SysProcAttr: cmd.SysProcAttr, Err: cmd.Err,
	}
}

func (r *run) watch() {
	r.err = r.cmd.Wait()
	close(r.exited)
}

func (r *run) over() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

// wait waits for the run to end, however it does.
func (r *run) wait(timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-r.exited:
		return true
	case <-timer.C:
		return false
	}
}

// waitLine waits for the latest run to print a line that contains substring.
func (p *process) waitLine(substring string, timeout time.Duration) (string, error) {
	r := p.current()
	if r == nil {
		return "", fmt.Errorf("%s: %w", p.name, errNotRunning)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	drained := r.drained
	for from := r.first; ; {
		line, found, next, changed := p.out.find(substring, from)
		if found {
			return line, nil
		}
		if drained == nil {
			return "", fmt.Errorf("%s ended without printing %q", p.name, substring)
		}
		from = next
		select {
		case <-changed:
		case <-drained:
			drained = nil // look once more: lines may have come in between
		case <-timer.C:
			return "", fmt.Errorf("%s did not print %q within %s", p.name, substring, timeout)
		}
	}
}

// stop freezes the process and its children, as a long pause of the machine
// would: connections stay open and nothing answers.
func (p *process) stop() error {
	r, err := p.alive()
	if err != nil {
		return err
	}
	// The parent first, and again until no child is new: a stopped parent
	// makes no more.
	pid := r.cmd.Process.Pid
	stopped := make(map[int]bool)
	for tree := []int{pid}; len(tree) > 0; {
		for _, member := range tree {
			if err := syscall.Kill(member, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("stop %s: %w", p.name, err)
			}
			stopped[member] = true
		}
		if err := until(endTimeout, func() bool { return allStopped(tree) }); err != nil {
			return fmt.Errorf("stop %s: %w", p.name, err)
		}
		tree = tree[:0]
		for _, child := range descendants(pid) {
			if !stopped[child] {
				tree = append(tree, child)
			}
		}
	}
	return nil
}

// cont lets a stopped process and its children go on.
func (p *process) cont() error {
	r, err := p.alive()
	if err != nil {
		return err
	}
	pid := r.cmd.Process.Pid
	for _, member := range append(descendants(pid), pid) {
		if err := syscall.Kill(member, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("continue %s: %w", p.name, err)
		}
	}
	return nil
}

// kill ends the process and its children at once (kill -9) and waits until
// they are gone. A process that is not running is left as it is.
func (p *process) kill() error {
	r := p.current()
	if r == nil {
		return nil
	}
	pid := r.cmd.Process.Pid
	var children []int
	if !r.over() {
		// The parent first: it must not see its children die and start to
		// repair what should look like a crash of the whole.
		children = descendants(pid)
		if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill %s: %w", p.name, err)
		}
	}
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGKILL) // it may have ended with its parent
	}
	if !r.wait(endTimeout) {
		return fmt.Errorf("kill %s: process %d is still there after %s", p.name, pid, endTimeout)
	}
	if err := until(endTimeout, func() bool { return allGone(children) }); err != nil {
		return fmt.Errorf("kill the children of %s: %w", p.name, err)
	}
	return nil
}

// signal sends sig to the process alone.
func (p *process) signal(sig syscall.Signal) error {
	r, err := p.alive()
	if err != nil {
		return err
	}
	if err := r.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// end ends the process for good: by its own last signal first, by kill if
// that does not help.
func (p *process) end() error {
	r, err := p.alive()
	if err == nil && p.last != syscall.SIGKILL {
		if p.cont() == nil && p.signal(p.last) == nil {
			r.wait(endTimeout / 2)
		}
	}
	return p.kill()
}

// until polls what only the kernel knows.
func until(timeout time.Duration, done func() bool) error {
	for deadline := time.Now().Add(timeout); !done(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("not done within %s", timeout)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}
