package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/peterbourgon/ff/v3"
)

// config is the command line.
type config struct {
	url    string // the shop; empty: in this process
	remote bool   // it may be on another machine

	users      int
	conns      int
	duplicates float64
	cut        float64
	sku        string

	timeout time.Duration
	settle  time.Duration

	baseline bool
	json     bool
	quiet    bool

	// For the shop in this process.
	redis  string
	db     string
	broker string
	stock  int64
}

// flags binds c to the flags of a command line.
func (c *config) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.url, "url", "", "the shop, as http://host:port; without it the shop is started in this process")
	fs.BoolVar(&c.remote, "remote", false, "the shop at -url is on another machine and yours to load")
	fs.IntVar(&c.users, "users", 50_000, "buyers, each of whom wants one unit")
	fs.IntVar(&c.conns, "conns", 1000, "connections, all opened before the bell; they work off the buyers as fast as they are answered")
	fs.Float64Var(&c.duplicates, "duplicates", 0.1, "share of buyers whose purchase is sent twice with the same key, on two connections")
	fs.Float64Var(&c.cut, "cut", 0.01, "share of buyers whose first connection is cut after the request was written; they send again with the same key")
	fs.StringVar(&c.sku, "sku", "ticket", "what they want to buy")
	fs.DurationVar(&c.timeout, "timeout", 5*time.Minute, "longest time for the whole run")
	fs.DurationVar(&c.settle, "settle", time.Minute, "longest wait for the orders to settle after the last answer")
	fs.BoolVar(&c.baseline, "baseline", false, "send the same load to a bare net/http handler first and print the ratio of the times")
	fs.BoolVar(&c.json, "json", false, "print one JSON object instead of the report")
	fs.BoolVar(&c.quiet, "quiet", false, "print the audit line only")
	fs.StringVar(&c.redis, "redis", "", "for the shop in this process: redis://…; embedded where empty")
	fs.StringVar(&c.db, "db", "", "for the shop in this process: postgres://… or sqlite:///path; embedded where empty")
	fs.StringVar(&c.broker, "broker", "", "for the shop in this process: redis, kafka or kafka://host:port,…")
	fs.Int64Var(&c.stock, "stock", 1000, "for the shop in this process: units for sale")
}

// The bounds keep a slip of the finger from becoming a run that eats the
// machine; buyers are numbered with eight digits.
const (
	maxUsers = 10_000_000
	maxConns = 60_000 // one client address has no more ports to one server
)

// parse reads the command line. Each flag is an environment variable too:
// -settle is STAMPEDE_SETTLE. A flag wins.
func parse(args []string, out io.Writer) (config, error) {
	var c config
	fs := flag.NewFlagSet("stampede", flag.ContinueOnError)
	fs.SetOutput(out)
	c.flags(fs)
	if err := ff.Parse(fs, args, ff.WithEnvVarPrefix("STAMPEDE")); err != nil {
		return config{}, err
	}
	if fs.NArg() > 0 {
		return config{}, fmt.Errorf("%q is not a flag", fs.Arg(0))
	}
	return c, c.validate()
}

// validate reports the first flag that is wrong.
func (c *config) validate() error {
	switch {
	case c.users < 1 || c.users > maxUsers:
		return fmt.Errorf("-users is %d, want 1 to %d", c.users, maxUsers)
	case c.conns < 1 || c.conns > maxConns:
		return fmt.Errorf("-conns is %d, want 1 to %d", c.conns, maxConns)
	case !isShare(c.duplicates):
		return fmt.Errorf("-duplicates is %v, want a share from 0 to 1", c.duplicates)
	case !isShare(c.cut):
		return fmt.Errorf("-cut is %v, want a share from 0 to 1", c.cut)
	case c.sku == "":
		return errors.New("-sku is empty")
	case c.timeout <= 0:
		return fmt.Errorf("-timeout is %v, want more than 0", c.timeout)
	case c.settle <= 0:
		return fmt.Errorf("-settle is %v, want more than 0", c.settle)
	case c.url != "" && (c.redis != "" || c.db != "" || c.broker != ""):
		return errors.New("-redis, -db and -broker are for the shop in this process, not for one at -url")
	}
	return nil
}

func isShare(f float64) bool { return !math.IsNaN(f) && f >= 0 && f <= 1 }
