//go:build unix

package main

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNeedFiles_SaysWhatStandsInTheWay(t *testing.T) {
	t.Parallel()
	if err := needFiles(10); err != nil {
		t.Errorf("10 files: %v", err)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max > 1<<40 {
		t.Skip("there is no limit here")
	}
	if err := needFiles(1 << 41); err == nil || !strings.Contains(err.Error(), "fewer connections") {
		t.Errorf("2^41 files: %v", err)
	}
}

func TestCPUTime_Grows(t *testing.T) {
	t.Parallel()
	start := cpuTime()
	for stop := time.Now().Add(10 * time.Second); cpuTime() == start && time.Now().Before(stop); {
	}
	if cpuTime() <= start {
		t.Error("no time has passed")
	}
}
