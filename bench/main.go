// Bench compares firstcome with what one would write instead, side by side: on
// the same server, in the same process, with the same callers, in turns.
//
//	cd bench && go run .
//	cd bench && go run . -run mixed -redis redis://127.0.0.1:6379/0
//
// The machine's speed changes from minute to minute; the ratio of two turns
// that follow each other does so much less. It is what to look at.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/pprof"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/testenv"
)

type settings struct {
	redis   string
	run     *regexp.Regexp
	rounds  int
	scale   float64
	profile string
	only    string
}

func main() {
	s, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := realMain(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (settings, error) {
	var s settings
	var run string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&s.redis, "redis", "", "URL of a Redis to use; without it one is started")
	flags.StringVar(&run, "run", "", "only the rows whose name matches this regular expression")
	flags.IntVar(&s.rounds, "rounds", 5, "rounds per row; each is one turn of ours and one of the peer")
	flags.Float64Var(&s.scale, "scale", 1, "factor on the number of calls")
	flags.StringVar(&s.profile, "cpuprofile", "", "write a CPU profile to this file")
	flags.StringVar(&s.only, "only", "", "ours or peer: leave the other side out, for profiles")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	var err error
	if s.run, err = regexp.Compile(run); err != nil {
		return s, err
	}
	switch {
	case s.rounds < 1 || s.scale <= 0:
		return s, errors.New("-rounds and -scale must be positive")
	case s.only != "" && s.only != "ours" && s.only != "peer":
		return s, errors.New("-only is ours or peer")
	}
	return s, nil
}

func realMain(ctx context.Context, s settings) error {
	program := testenv.NewProgram("bench")
	defer program.Close()
	if s.redis == "" {
		s.redis = testenv.NewRedis(program).URL()
	}
	options, err := redis.ParseURL(s.redis)
	if err != nil {
		return fmt.Errorf("-redis: %w", err)
	}
	if s.profile != "" {
		f, err := os.Create(s.profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	arena, err := newArena(ctx, options)
	if err != nil {
		return err
	}
	defer arena.close()
	fmt.Printf("%s, %s, GOMAXPROCS %d; %d rounds\n\n", arena.version, runtime.Version(), runtime.GOMAXPROCS(0), s.rounds)
	if err := contend(ctx, os.Stdout, arena, s); err != nil {
		return err
	}
	if err := distances(ctx, os.Stdout, arena, s); err != nil {
		return err
	}
	if s.run.MatchString("memory") {
		return memory(ctx, os.Stdout, arena, s.scale)
	}
	return nil
}

// contend runs the contests that are asked for.
func contend(ctx context.Context, w io.Writer, a *arena, s settings) error {
	var t *table
	for _, c := range contests() {
		if !s.run.MatchString(c.name) {
			continue
		}
		if t == nil {
			t = newTable(w)
		}
		c.calls = max(int(float64(c.calls)*s.scale), c.callers)
		r, err := c.fight(ctx, a, s)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		t.row(c, r)
	}
	if t != nil {
		t.legend()
	}
	return nil
}

// contests are the rows of the table; each subject adds its own in a file of
// its name.
func contests() []contest {
	return stockContests()
}
