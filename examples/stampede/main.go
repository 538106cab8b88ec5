// Stampede sends every buyer's purchase to a firstcome shop at once, a share
// of them twice with the same Idempotency-Key and some after a cut connection,
// and then asks the shop for its books.
//
//	go run ./examples/shop &
//	go run ./examples/stampede -url http://127.0.0.1:8080 -users 50000 -conns 1000 -duplicates 0.1
//
// Without -url it starts the shop inside itself. It prints the answers by kind,
// requests per second, latencies and one last line:
//
//	AUDIT OK: 1000 sold to 1000 buyers, 0 oversold, 0 stranded, 0 duplicates, events 1000 written 1000 handled
//
// or "AUDIT FAILED: …" with what is wrong, and then exits 1. The judgement does
// not trust the shop: every buyer's answers must agree with each other, and what
// the buyers were told must agree with what the shop's books say.
//
// It is a load generator: it talks to this machine only, unless -remote says
// that the shop at the other end is yours to load.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if serveBareIfAsked() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first ctrl-C ends the run with what it has; after that the default is
	// back, so a second one ends the process.
	context.AfterFunc(ctx, stop)
	err := realMain(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errAudit): // the report has said why
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "stampede:", err)
		os.Exit(1)
	}
}

// errAudit says that the run ended with a line "AUDIT FAILED: …", which is
// printed already.
var errAudit = errors.New("audit failed")

// realMain is one whole run: the report goes to stdout, progress to stderr.
func realMain(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	run, err := newRun(cfg, stdout, stderr)
	if err != nil {
		return err
	}
	return run.do(ctx)
}
