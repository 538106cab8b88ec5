package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/firstcome/firstcome/internal/testenv"
)

// event is one line of go test -json (`go doc test2json`).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// lines is what a package has printed so far: by test, and in all.
type lines struct {
	tests map[string][]string
	own   []string // of no test
}

// printer prints as go test does without -v: a line for each package, and all
// of what failed.
type printer struct {
	w        io.Writer
	packages map[string]*lines

	skipped int // tests that lacked a server
	lacking int // packages with such tests
	servers []string
}

// read prints the events as they come. A line that is none is printed as it is.
func (p *printer) read(r io.Reader) error {
	for buffered := bufio.NewReader(r); ; {
		line, err := buffered.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if line[0] == '{' && json.Unmarshal(line, &e) == nil {
				p.event(&e)
			} else {
				_, _ = p.w.Write(line)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *printer) event(e *event) {
	if e.Action == "build-output" {
		p.print(e.Output)
		return
	}
	l := p.packages[e.Package]
	if l == nil {
		l = &lines{tests: map[string][]string{}}
		p.packages[e.Package] = l
	}
	switch {
	case e.Action == "output" && e.Test != "":
		l.tests[e.Test] = append(l.tests[e.Test], e.Output)
	case e.Action == "output":
		p.note(e.Output)
		l.own = append(l.own, e.Output)
	case e.Action == "fail" && e.Test != "":
		p.print(l.tests[e.Test]...)
		delete(l.tests, e.Test)
	case e.Test != "" && (e.Action == "pass" || e.Action == "skip"):
		delete(l.tests, e.Test)
	case e.Action == "fail":
		p.unfinished(l)
		p.print(l.own...)
		delete(p.packages, e.Package)
	case e.Action == "pass" || e.Action == "skip":
		p.print(lastLine(l.own)...)
		delete(p.packages, e.Package)
	}
}

// unfinished prints what tests have said that a panic or the time limit ended.
func (p *printer) unfinished(l *lines) {
	for _, test := range slices.Sorted(maps.Keys(l.tests)) {
		p.print(l.tests[test]...)
	}
}

// lastLine is the one that go test prints of a package that passed.
func lastLine(own []string) []string {
	for i, line := range slices.Backward(own) {
		if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") || strings.HasPrefix(line, "\t") {
			return own[i : i+1]
		}
	}
	return nil
}

// note adds up what the test binaries say at their ends.
func (p *printer) note(line string) {
	counted, found := strings.CutPrefix(line, testenv.SkippedPrefix)
	if !found {
		return
	}
	var tests int
	number, names, _ := strings.Cut(strings.TrimSpace(counted), " (")
	if _, err := fmt.Sscan(number, &tests); err != nil {
		return
	}
	p.skipped += tests
	p.lacking++
	for name := range strings.SplitSeq(strings.TrimSuffix(names, ")"), ", ") {
		if !slices.Contains(p.servers, name) {
			p.servers = append(p.servers, name)
		}
	}
}

// summary is the last line, where anything was missing.
func (p *printer) summary() {
	if p.skipped == 0 {
		return
	}
	slices.Sort(p.servers)
	p.print(fmt.Sprintf("\n%d tests of %d packages were skipped for missing servers (%s); `make servers-install` installs them.\n",
		p.skipped, p.lacking, strings.Join(p.servers, ", ")))
}

func (p *printer) print(text ...string) {
	var b bytes.Buffer
	for _, t := range text {
		b.WriteString(t)
	}
	_, _ = p.w.Write(b.Bytes())
}
