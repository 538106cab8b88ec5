package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	folderPattern = "firstcome-testenv-*"
	lockName      = "lock"
)

// root is this process's folder below the temporary one; all servers live in
// it. It holds a locked file, by which a later process sees whether this one
// is still alive.
var root struct {
	mu   sync.Mutex
	path string
}

// folder makes a fresh folder whose name starts with name.
func folder(name string) (string, error) {
	root.mu.Lock()
	defer root.mu.Unlock()
	if root.path == "" {
		path, err := newRoot()
		if err != nil {
			return "", fmt.Errorf("make the folder of the servers: %w", err)
		}
		root.path = path
	}
	path, err := os.MkdirTemp(root.path, name+"-")
	if err != nil {
		return "", fmt.Errorf("make the folder of %s: %w", name, err)
	}
	return path, nil
}

func newRoot() (string, error) {
	path, err := os.MkdirTemp("", folderPattern)
	if err != nil {
		return "", err
	}
	// PostgreSQL refuses to run as root, so its own user must be able to walk
	// through to its folder.
	if err := os.Chmod(path, 0o711); err != nil { //nolint:gosec // see above; only the execute bit is given
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	if err := flock(lock); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	atEnd(func() error {
		root.mu.Lock()
		defer root.mu.Unlock()
		root.path = ""
		return closeAndRemove(lock, path)
	})
	return path, nil
}

func closeAndRemove(lock *os.File, path string) error {
	err := os.RemoveAll(path)
	_ = lock.Close() // only now may another process take the folder for abandoned
	return err
}

// sweep removes the folders of processes that ended without cleaning up. It
// is best effort: what it cannot remove, the next one finds.
func sweep() {
	paths, _ := filepath.Glob(filepath.Join(os.TempDir(), folderPattern))
	for _, path := range paths {
		name := filepath.Join(path, lockName)
		info, err := os.Stat(name)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue // perhaps just being made: created, but not locked yet
		}
		lock, err := os.OpenFile(name, os.O_RDWR, 0o600)
		if err != nil {
			continue
		}
		if flock(lock) != nil {
			_ = lock.Close() // its process is alive
			continue
		}
		_ = closeAndRemove(lock, path)
	}
}

// flock takes a file's lock, or fails at once.
func flock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
