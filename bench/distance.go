package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/firstcome/firstcome/internal/faulty"
)

// The aims at a distance: what a call of ours may take of the plain script's
// latency where few call, and how many times its rate it has to reach where a
// crowd does.
const (
	fewCallers, crowdCallers = 8, 1000

	latencyAim = 1.15
	nearAim    = 1.6 // Reserve at nearTrip, whose script has more to do
	rateAim    = 4
	nearTrip   = 200 * time.Microsecond
)

// A turn at a distance lasts a time rather than a number of calls: what a crowd
// does in it differs by more than ten times between the sides.
const (
	settling = 150 * time.Millisecond // until the distance is known and all connections stand
	turnTime = 400 * time.Millisecond
)

// far is one row: a subject and the plain script that does its least, behind a
// proxy that adds a round trip.
type far struct {
	subject subject
	trip    time.Duration
	callers int
}

func (f far) name() string {
	return fmt.Sprintf("far %v: %s, %d callers", f.trip, f.subject.name, f.callers)
}

func farRows() []far {
	var rows []far
	for _, trip := range []time.Duration{nearTrip, time.Millisecond, 5 * time.Millisecond} {
		for _, callers := range []int{fewCallers, crowdCallers} {
			for _, s := range subjects() {
				rows = append(rows, far{s, trip, callers})
			}
		}
	}
	return rows
}

// distances measures the rows that are asked for and prints them.
func distances(ctx context.Context, w io.Writer, a *arena, s settings) error {
	headed := false
	proxies := make(map[time.Duration]*faulty.Proxy)
	defer func() {
		for _, p := range proxies {
			_ = p.Close()
		}
	}()
	for _, f := range farRows() {
		if !s.run.MatchString(f.name()) {
			continue
		}
		if !headed {
			headed = true
			fmt.Fprintf(w, "\nBehind a proxy that adds a round trip, both sides on clients of the same settings; %d turns of %v each:\n", s.rounds, turnTime)
			fmt.Fprintf(w, farLayout, "name", "PING ms", "p50 ms", "p99 ms", "calls/s", "aimed at", "ratio (median, min, max)", "aim")
		}
		proxy := proxies[f.trip]
		if proxy == nil {
			var err error
			if proxy, err = faulty.NewProxy(a.options.Addr, f.trip); err != nil {
				return err
			}
			proxies[f.trip] = proxy
		}
		if err := f.fight(ctx, w, a.behind(proxy.Addr()), s); err != nil {
			return fmt.Errorf("%s: %w", f.name(), err)
		}
	}
	return nil
}

const farLayout = "%-38s | %7s | %15s | %17s | %17s | %8s | %-24s | %s\n"

// fight runs the rounds of a row and prints it. Who begins changes from round to
// round.
func (f far) fight(ctx context.Context, w io.Writer, a *arena, s settings) error {
	ping, err := a.ping(ctx)
	if err != nil {
		return err
	}
	var ours, plain []score
	for round := range s.rounds {
		sides := []struct {
			name string
			make func(context.Context, *arena) (call, func(), error)
			to   *[]score
		}{{"ours", f.subject.ours, &ours}, {"peer", f.subject.plain, &plain}}
		if round%2 == 1 {
			slices.Reverse(sides)
		}
		for _, side := range sides {
			if s.only != "" && s.only != side.name {
				continue
			}
			one, err := f.play(ctx, a, side.make)
			if err != nil {
				return fmt.Errorf("%s: %w", side.name, err)
			}
			*side.to = append(*side.to, one)
		}
	}
	f.print(w, ping, ours, plain)
	return nil
}

func (f far) play(ctx context.Context, a *arena, side func(context.Context, *arena) (call, func(), error)) (score, error) {
	do, end, err := side(ctx, a)
	if err != nil {
		return score{}, err
	}
	defer a.sweep(ctx)
	defer end()
	if _, err := f.loop(ctx, 0, settling, do); err != nil {
		return score{}, err
	}
	begun := time.Now()
	took, err := f.loop(ctx, 1<<40, turnTime, do)
	if err != nil {
		return score{}, err
	}
	rate := float64(len(took)) / time.Since(begun).Seconds()
	slices.Sort(took)
	return score{perSecond: rate, p50: took[len(took)/2], p99: took[len(took)*99/100]}, nil
}

// loop lets the callers call one after the other for a time; their calls are
// numbered from first on.
func (f far) loop(ctx context.Context, first int, long time.Duration, do call) ([]time.Duration, error) {
	each := make([][]time.Duration, f.callers)
	failed := make(chan error, f.callers)
	end := time.Now().Add(long)
	var all sync.WaitGroup
	for c := range each {
		all.Go(func() {
			own, cancel := context.WithCancel(ctx) // as each request of a server has one
			defer cancel()
			for i := first + c; ; i += f.callers {
				begun := time.Now()
				if begun.After(end) {
					return
				}
				if err := do(own, i); err != nil {
					failed <- err
					return
				}
				each[c] = append(each[c], time.Since(begun))
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
		return slices.Concat(each...), nil
	}
}

// print shows the row. Few callers are compared by their median latency, a crowd
// by its rate.
func (f far) print(w io.Writer, ping time.Duration, ours, plain []score) {
	o, p := summary(ours), summary(plain)
	of, aim, met := "latency", latencyAim, func(r, aim float64) bool { return r <= aim }
	value := func(s score) float64 { return float64(s.p50) }
	switch {
	case f.callers == crowdCallers:
		of, aim, met = "rate", rateAim, func(r, aim float64) bool { return r >= aim }
		value = func(s score) float64 { return s.perSecond }
	case f.trip == nearTrip && f.subject.name == "reserve":
		aim = nearAim
	}
	verdict, shown := "-", "-"
	if len(ours) > 0 && len(plain) > 0 {
		all := quotients(ours, plain, value)
		shown = fmt.Sprintf("%.2f (%.2f, %.2f)", all[len(all)/2], all[0], all[len(all)-1])
		verdict = fmt.Sprintf("%.2f missed", aim)
		if met(all[len(all)/2], aim) {
			verdict = fmt.Sprintf("%.2f met", aim)
		}
	}
	fmt.Fprintf(w, farLayout, f.name(), fmt.Sprintf("%.2f", ms(ping)),
		pair("%.2f", ms(o.p50), ms(p.p50)), pair("%.2f", ms(o.p99), ms(p.p99)), pair("%.0f", o.perSecond, p.perSecond),
		of, shown, verdict)
}
