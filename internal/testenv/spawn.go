package testenv

import (
	"os/exec"
	"runtime"
	"sync"
)

// spawning is the one goroutine that starts children. On Linux a child is
// told to die with its parent, and "parent" there is the thread that started
// it: a thread that the Go runtime retires would take its servers along. So
// one goroutine keeps one thread for itself until the end.
var spawning struct {
	mu   sync.Mutex
	jobs chan func()
}

// spawn starts cmd on the spawner's thread.
func spawn(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	spawning.mu.Lock()
	if spawning.jobs == nil {
		jobs := make(chan func())
		spawning.jobs = jobs
		go spawner(jobs)
		atEnd(func() error {
			spawning.mu.Lock()
			defer spawning.mu.Unlock()
			close(jobs)
			spawning.jobs = nil
			return nil
		})
	}
	spawning.jobs <- func() { done <- cmd.Start() }
	spawning.mu.Unlock()
	return <-done
}

func spawner(jobs <-chan func()) {
	runtime.LockOSThread() // never unlocked: see spawning
	for job := range jobs {
		job()
	}
}
