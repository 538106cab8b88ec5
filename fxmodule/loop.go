package fxmodule

import (
	"context"
	"fmt"
	"log/slog"

	"go.uber.org/fx"
)

// Loop runs a blocking function between the application's start and stop, as
// the modules of this package do with their own. The function ends when its
// context does; if it returns an error before, the application shuts down with
// exit code 1.
func Loop(lc fx.Lifecycle, sd fx.Shutdowner, name string, run func(ctx context.Context) error) {
	var cancel context.CancelFunc
	var done chan error
	lc.Append(fx.Hook{
		OnStart: func(ctx context.Context) error {
			// The hook's own context ends with the start; the loop's values are its.
			ctx, cancel = context.WithCancel(context.WithoutCancel(ctx)) //nolint:gosec // OnStop calls it
			done = make(chan error, 1)
			go func() {
				err := run(ctx)
				done <- err
				if ctx.Err() == nil {
					slog.ErrorContext(ctx, "firstcome: loop ended by itself", "loop", name, "error", err)
					_ = sd.Shutdown(fx.ExitCode(1))
				}
			}()
			return nil
		},
		OnStop: func(ctx context.Context) error {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				return nil
			case <-ctx.Done():
				return fmt.Errorf("%s: did not stop in time: %w", name, context.Cause(ctx))
			}
		},
	})
}
