package testenv

import (
	"bufio"
	"io"
	"strings"
	"sync"
)

// maxLines bounds what is kept of a process's output; the oldest lines go.
const maxLines = 20_000

// output collects what the runs of one process print, line by line.
type output struct {
	mu      sync.Mutex
	lines   []string
	dropped int           // how many lines went before lines[0]
	changed chan struct{} // closed, and replaced, at each new line
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// read takes lines from r until it ends, then closes drained.
func (o *output) read(r io.ReadCloser, drained chan<- struct{}) {
	defer close(drained)
	defer func() { _ = r.Close() }()
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			o.add(strings.TrimRight(line, "\r\n"))
		}
		if err != nil {
			return
		}
	}
}

func (o *output) add(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) == maxLines {
		drop := maxLines / 2
		o.lines = append(o.lines[:0:0], o.lines[drop:]...)
		o.dropped += drop
	}
	o.lines = append(o.lines, line)
	close(o.changed)
	o.changed = make(chan struct{})
}

// end returns the number that the next line will have.
func (o *output) end() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped + len(o.lines)
}

// find looks for substring in the lines from number from on. If none has it,
// it returns the number to go on from and a channel that tells of new lines.
func (o *output) find(substring string, from int) (line string, found bool, next int, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := max(from-o.dropped, 0); i < len(o.lines); i++ {
		if strings.Contains(o.lines[i], substring) {
			return o.lines[i], true, o.dropped + i + 1, nil
		}
	}
	return "", false, o.dropped + len(o.lines), o.changed
}

// tail returns the last n lines.
func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines[max(0, len(o.lines)-n):], "\n")
}
