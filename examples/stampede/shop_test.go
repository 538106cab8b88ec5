package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// The real shop, in this process, on embedded parts.
func TestStampede_RunsTheShopInThisProcess(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var out, progress bytes.Buffer
	err := realMain(ctx, []string{"-users", "300", "-conns", "30", "-stock", "50", "-baseline"}, &out, &progress)
	want := "AUDIT OK: 50 sold to 50 buyers, 0 oversold, 0 stranded, 0 duplicates, events 50 written 50 handled\n"
	if err != nil || !strings.HasSuffix(out.String(), want) {
		t.Errorf("%v, printed\n%s\n%s", err, progress.String(), out.String())
	}
	if !strings.Contains(out.String(), "times as long") {
		t.Errorf("no ratio in\n%s", out.String())
	}
}
