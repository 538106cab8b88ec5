//go:build !linux

package faulty

import "time"

// alarm wakes one goroutine, as exactly as Go's timers do.
type alarm struct{}

func newAlarm() *alarm { return &alarm{} }

func (a *alarm) wait(due time.Time) { time.Sleep(time.Until(due)) }

func (a *alarm) close() {}
