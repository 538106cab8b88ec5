package faulty

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes one goroutine at a time that is exact to some microseconds: by a
// file of the kernel's that becomes readable then.
type alarm struct {
	fd   int
	file *os.File // nil where the kernel gave none: then time.Sleep has to do
}

func newAlarm() *alarm {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return &alarm{}
	}
	return &alarm{fd: fd, file: os.NewFile(uintptr(fd), "timerfd")}
}

func (a *alarm) wait(due time.Time) {
	left := time.Until(due)
	if left <= 0 {
		return
	}
	if a.file == nil {
		time.Sleep(left)
		return
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(left.Nanoseconds())}
	if err := unix.TimerfdSettime(a.fd, 0, &spec, nil); err != nil {
		time.Sleep(left)
		return
	}
	var count [8]byte
	_, _ = a.file.Read(count[:])
}

func (a *alarm) close() {
	if a.file != nil {
		_ = a.file.Close()
	}
}
