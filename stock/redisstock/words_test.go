package redisstock_test

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }

func name(i int) string { return fmt.Sprintf("buyer-%d", i) }

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// quiet is a logger for faults that are meant to happen.
var quiet = slog.New(slog.DiscardHandler)
