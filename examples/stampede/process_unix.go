//go:build unix

package main

import (
	"fmt"
	"syscall"
	"time"
)

// needFiles makes room for n open files, or says what stands in the way.
func needFiles(n uint64) error {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return nil //nolint:nilerr // nobody knows; dialing will tell
	}
	//nolint:unconvert // the fields are signed on some systems
	soft, hard := uint64(limit.Cur), uint64(limit.Max)
	if soft >= n {
		return nil
	}
	if hard >= n {
		limit.Cur = limit.Max
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
			return nil
		}
	}
	return fmt.Errorf("-conns needs %d open files and the limit is %d (hard: %d): raise it with `ulimit -n %d`, or take fewer connections",
		n, soft, hard, n)
}

// cpuTime is what this process has used so far, in user and system time.
func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
