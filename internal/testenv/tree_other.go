//go:build unix && !linux

package testenv

import (
	"errors"
	"syscall"
)

// Without /proc the process group is the nearest thing to the tree of
// processes; members are addressed by the negative number of their group.

func childAttributes(given *syscall.SysProcAttr) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{}
	if given != nil {
		*attributes = *given
	}
	attributes.Setpgid = true
	return attributes
}

func descendants(pid int) []int { return []int{-pid} }

func allStopped([]int) bool { return true }

func allGone(pids []int) bool {
	for _, pid := range pids {
		if !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return false
		}
	}
	return true
}
