// Command shop sells tickets to whoever comes first: the whole line of
// firstcome, from HTTP to a charged order, in one process or several. With no
// flags it needs nothing installed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/peterbourgon/ff/v3"

	"github.com/firstcome/firstcome/examples/shop/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := realMain(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "shop:", err)
		stop()
		os.Exit(1)
	}
}

// stopTime is how long work may finish after the signal to stop.
const stopTime = 20 * time.Second

func realMain(ctx context.Context, args []string) error {
	cfg := app.Defaults()
	fs := flag.NewFlagSet("shop", flag.ContinueOnError)
	cfg.Flags(fs)
	// Each flag is an environment variable too: -payment-failures is
	// SHOP_PAYMENT_FAILURES. A flag wins.
	if err := ff.Parse(fs, args, ff.WithEnvVarPrefix("SHOP")); err != nil {
		return err
	}
	shop, err := app.Start(ctx, cfg, os.Stdout)
	if err != nil {
		return err
	}
	var failed error
	select {
	case <-ctx.Done():
	case end := <-shop.Failed():
		if end.ExitCode != 0 { // Fx hears the signals to stop as well
			failed = fmt.Errorf("a part ended by itself, exit code %d; see the log", end.ExitCode)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return errors.Join(failed, shop.Stop(ctx))
}
