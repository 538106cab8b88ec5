package testenv

import "time"

// Controls pause, kill and restart a process. A failure fails the test
// without ending it (as [testing.T.Errorf] does), so all of them may be
// called from any goroutine. On a shared server they are refused: the other
// tests would not like it.
type Controls struct {
	t       TB
	process *process
	shared  bool
}

// Stop freezes the process and its children (SIGSTOP) and waits until none of
// their threads runs: connections stay open and nothing answers.
func (c *Controls) Stop() { c.t.Helper(); c.do((*process).stop) }

// Cont lets a stopped process and its children go on (SIGCONT).
func (c *Controls) Cont() { c.t.Helper(); c.do((*process).cont) }

// Kill ends the process and its children at once (SIGKILL) and waits until
// they are gone. Killing what is not running is no error.
func (c *Controls) Kill() { c.t.Helper(); c.do((*process).kill) }

// Restart starts the same command again, a server on the same port and
// folder, and waits until it is ready. One that still runs is killed first.
func (c *Controls) Restart() {
	c.t.Helper()
	c.do(func(p *process) error {
		var err error
		for range restartTries {
			if err = p.kill(); err != nil {
				return err
			}
			if err = p.start(); err == nil {
				return nil
			}
			time.Sleep(restartPause)
		}
		return err
	})
}

// A PostgreSQL that was killed while it forked leaves a child that lives a
// moment longer and keeps the shared memory, on which the next start gives up.
const (
	restartTries = 5
	restartPause = 200 * time.Millisecond
)

// PID is the process ID of the latest run.
func (c *Controls) PID() int {
	if r := c.process.current(); r != nil {
		return r.cmd.Process.Pid
	}
	return 0
}

// Output is what all runs have printed, at most the last 10,000 to 20,000
// lines.
func (c *Controls) Output() string { return c.process.out.tail(maxLines) }

func (c *Controls) do(step func(*process) error) {
	c.t.Helper()
	if c.shared {
		c.t.Errorf("testenv: %s is shared with other tests; break a private one (New…)", c.process.name)
		return
	}
	if err := step(c.process); err != nil {
		c.t.Errorf("testenv: %v", err)
	}
}

// private gives a process to one test: it ends with the test, and what it
// printed last is logged if the test fails.
func private(t TB, p *process) Controls {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last lines of %s:\n%s", p.name, p.out.tail(40))
		}
		if err := p.end(); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	return Controls{t: t, process: p}
}
