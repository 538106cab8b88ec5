package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

const layout = "%-34s | %9s | %9s | %-22s | %15s | %15s | %13s | %13s | %11s\n"

type table struct{ w io.Writer }

func newTable(w io.Writer) *table {
	fmt.Fprintf(w, layout, "name", "ours", "peer", "ratio (median, min, max)", "p99 ms", "longest ms", "Redis µs", "CPU µs", "allocs")
	return &table{w: w}
}

func (t *table) row(c contest, s scores) {
	ours, peer := summary(s.ours), summary(s.peer)
	fmt.Fprintf(t.w, layout, c.name,
		fmt.Sprintf("%.0f/s", ours.perSecond), fmt.Sprintf("%.0f/s", peer.perSecond), ratios(s),
		pair("%.2f", ms(ours.p99), ms(peer.p99)), pair("%.1f", ms(ours.longest), ms(peer.longest)),
		pair("%.2f", ours.redis, peer.redis),
		pair("%.1f", ours.cpu, peer.cpu), pair("%.1f", ours.allocs, peer.allocs))
}

func (t *table) legend() {
	fmt.Fprint(t.w, `
Figures are medians over the rounds. A ratio is ours through peer in calls per
second, of the two turns of one round. The others are "ours : peer": p99 from
call to answer, and the longest; per call the time that Redis spends in scripts, the CPU of Redis
and this process together (load generator included; the figure to look at on a
busy machine), and the memory allocations of this process.
`)
}

func pair(format string, ours, peer float64) string {
	return fmt.Sprintf(format+" : "+format, ours, peer)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// ratios compares turn by turn: the two of a round had the same weather.
func ratios(s scores) string {
	if len(s.ours) == 0 || len(s.peer) == 0 {
		return "-"
	}
	all := quotients(s.ours, s.peer, func(s score) float64 { return s.perSecond })
	return fmt.Sprintf("%.2f (%.2f, %.2f)", all[len(all)/2], all[0], all[len(all)-1])
}

// quotients are those of the two turns of each round, sorted.
func quotients(ours, peer []score, of func(score) float64) []float64 {
	all := make([]float64, len(ours))
	for i := range all {
		all[i] = of(ours[i]) / of(peer[i])
	}
	slices.Sort(all)
	return all
}

func summary(all []score) score {
	if len(all) == 0 {
		return score{}
	}
	return score{
		perSecond: median(all, func(s score) float64 { return s.perSecond }),
		p50:       time.Duration(median(all, func(s score) float64 { return float64(s.p50) })),
		p99:       time.Duration(median(all, func(s score) float64 { return float64(s.p99) })),
		longest:   time.Duration(median(all, func(s score) float64 { return float64(s.longest) })),
		redis:     median(all, func(s score) float64 { return s.redis }),
		cpu:       median(all, func(s score) float64 { return s.cpu }),
		allocs:    median(all, func(s score) float64 { return s.allocs }),
	}
}

func median(all []score, of func(score) float64) float64 {
	values := make([]float64, len(all))
	for i, s := range all {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
