package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	rewriteEvery = 100 * time.Millisecond // on a terminal
	printEvery   = 2 * time.Second        // elsewhere
)

// progress shows how far the run is: on a terminal one line, written over and
// over; elsewhere, as in a CI's log, a plain line once in a while.
type progress struct {
	out      io.Writer
	terminal bool
	mu       sync.Mutex
	shown    int       // the width of the line that stands on the terminal
	last     time.Time // when a line was printed elsewhere
}

func newProgress(out io.Writer, quiet bool) *progress {
	if quiet {
		return &progress{out: io.Discard}
	}
	p := &progress{out: out}
	if file, ok := out.(*os.File); ok {
		info, err := file.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// update shows where things stand now.
func (p *progress) update(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if !p.terminal {
		if time.Since(p.last) >= printEvery {
			p.last = time.Now()
			p.print(line + "\n")
		}
		return
	}
	p.clear()
	p.shown = len([]rune(line))
	p.print(line)
}

// done takes the rewritten line away; what follows is the report.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// print ignores errors: a run whose progress nobody sees is still a run.
func (p *progress) print(text string) { _, _ = io.WriteString(p.out, text) }

// clear takes the rewritten line away.
func (p *progress) clear() {
	if p.shown > 0 {
		p.print("\r" + strings.Repeat(" ", p.shown) + "\r")
		p.shown = 0
	}
}

// watch shows a crowd's progress until it is stopped.
func (p *progress) watch(name string, c *crowd) (stop func()) {
	done := make(chan struct{})
	var ended sync.WaitGroup
	p.mu.Lock()
	p.last = time.Now() // a short run needs no line
	p.mu.Unlock()
	ended.Go(func() {
		tick := time.NewTicker(rewriteEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.update("%s: %d of %d answered, %d held, %d sent again, %.1f s", name, c.tally.answered(), len(c.sends),
					c.tally.final[kindHeld].Load(), c.tally.refused()+c.tally.lost.Load(), time.Since(c.bell).Seconds())
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		ended.Wait()
		p.done()
	}
}
