// Servers starts a Redis (append-only file, fsync always), a PostgreSQL and a
// Kafka on loopback for use by hand, prints their URLs, and ends them on
// ctrl-C. Nothing of them is kept.
//
//	make servers
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/firstcome/firstcome/internal/testenv"
)

// starters start each server that can be asked for.
var starters = map[string]func(testenv.TB) testenv.Server{
	"redis": func(t testenv.TB) testenv.Server {
		return testenv.NewRedis(t, "appendonly yes", "appendfsync always")
	},
	"postgres": func(t testenv.TB) testenv.Server { return testenv.NewPostgres(t) },
	"kafka":    func(t testenv.TB) testenv.Server { return testenv.NewKafka(t) },
}

func main() {
	only := flag.String("only", "redis,postgres,kafka", "which servers to start, separated by commas")
	prepare := flag.Bool("prepare", false, "have Kafka start faster from now on, and do nothing else")
	flag.CommandLine.SetOutput(os.Stdout)
	flag.Parse()
	if *prepare {
		program := testenv.NewProgram("servers")
		defer program.Close()
		testenv.PrepareKafka(program)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := realMain(ctx, strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

func realMain(ctx context.Context, names []string) error {
	for _, name := range names {
		if starters[name] == nil {
			return fmt.Errorf("no server is named %q", name)
		}
	}
	program := testenv.NewProgram("servers")
	defer program.Close()
	flags := make([]string, 0, len(names))
	for _, name := range names {
		url := starters[name](program).URL()
		fmt.Printf("%-9s %s\n", name, url)
		flags = append(flags, shopFlags[name]+" '"+url+"'")
	}
	fmt.Printf("\ngo run ./examples/shop %s\n\nctrl-C ends them.\n", strings.Join(flags, " "))
	<-ctx.Done()
	return nil
}

// shopFlags are the flags by which the shop takes each server.
var shopFlags = map[string]string{"redis": "-redis", "postgres": "-db", "kafka": "-broker"}
