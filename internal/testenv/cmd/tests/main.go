// Tests runs `go test` with the arguments it is given, prints what that prints,
// and says at the end which servers were missing and how many tests were skipped
// for it. `go test ./...` by itself keeps to itself what a passing package has to
// say.
//
//	make test
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	code, err := realMain(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// realMain returns the exit code of go test.
func realMain(args []string, w io.Writer) (int, error) {
	// ctrl-C reaches go test, too; its last words are worth waiting for.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)

	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...) //nolint:gosec // whoever runs this gives the arguments
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	p := printer{w: w, packages: map[string]*lines{}}
	err = p.read(events)
	if waited := cmd.Wait(); cmd.ProcessState == nil {
		return 0, waited
	}
	if err != nil {
		return 0, err
	}
	p.summary()
	return cmd.ProcessState.ExitCode(), nil
}
