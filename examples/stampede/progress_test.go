package main

import (
	"bytes"
	"testing"
)

func TestProgress_RewritesOneLineOnATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newProgress(&out, false)
	p.terminal = true
	p.update("%d of 3", 1)
	p.update("%d of 3", 2)
	p.done()
	p.done()
	want := "1 of 3" + "\r      \r" + "2 of 3" + "\r      \r"
	if out.String() != want {
		t.Errorf("wrote %q, want %q", out.String(), want)
	}
}

func TestProgress_PrintsNowAndThenElsewhere(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newProgress(&out, false)
	for range 3 {
		p.update("far")
	}
	if out.String() != "far\n" {
		t.Errorf("wrote %q", out.String())
	}
}
