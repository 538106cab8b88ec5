package testenv

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// childAttributes has a child die with this process, even by kill -9, and
// keeps it out of our process group, so that ctrl-C reaches us alone.
func childAttributes(given *syscall.SysProcAttr) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{}
	if given != nil {
		*attributes = *given
	}
	attributes.Setpgid = true
	attributes.Pdeathsig = syscall.SIGKILL
	return attributes
}

// descendants returns the children of pid, their children and so on. It reads
// the process table, since PostgreSQL's backends leave the group of their
// parent.
func descendants(pid int) []int {
	children := make(map[int][]int)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			continue
		}
		if state, parent := stat(name); state != 0 && state != 'Z' {
			children[parent] = append(children[parent], child)
		}
	}
	var found []int
	for next := children[pid]; len(next) > 0; next = next[1:] {
		found = append(found, next[0])
		next = append(next, children[next[0]]...)
	}
	return found
}

// allStopped reports whether no thread of the processes can run.
func allStopped(pids []int) bool {
	for _, pid := range pids {
		threads, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/[0-9]*/stat")
		for _, name := range threads {
			switch state, _ := stat(name); state {
			case 0, 'T', 't', 'Z', 'X':
			default:
				return false
			}
		}
	}
	return true
}

// allGone reports whether the processes are gone, or wait only to be reaped
// by whoever inherited them.
func allGone(pids []int) bool {
	for _, pid := range pids {
		if state, _ := stat("/proc/" + strconv.Itoa(pid) + "/stat"); state != 0 && state != 'Z' && state != 'X' {
			return false
		}
	}
	return true
}

// stat reads a thread's state and its parent from a stat file; state 0 is
// gone. The fields follow the command's name, which stands in parentheses and
// may itself hold any character.
func stat(name string) (state byte, parent int) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, 0
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(string(fields[1]))
	return fields[0][0], parent
}
