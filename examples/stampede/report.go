package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// findings is all that a run has found.
type findings struct {
	cfg      config
	run, url string
	baseline *outcome // nil: not asked for
	outcome  *outcome
	tally    *tally
	settling time.Duration
	evidence evidence
	verdict  verdict
}

// write prints what the command line asks for.
func (f *findings) write(w io.Writer) error {
	switch {
	case f.cfg.json:
		return json.NewEncoder(w).Encode(f.report())
	case f.cfg.quiet:
		_, err := fmt.Fprintln(w, f.verdict.line())
		return err
	}
	_, err := io.WriteString(w, f.report().text())
	return err
}

// report is the findings as machines read them. Times are in milliseconds.
type report struct {
	URL        string  `json:"url"`
	Run        string  `json:"run"`
	Users      int     `json:"users"`
	Conns      int     `json:"conns"`
	Duplicates float64 `json:"duplicates"`
	Cut        float64 `json:"cut"`

	Opening          ms               `json:"opening_ms"`
	Elapsed          ms               `json:"elapsed_ms"`       // from the bell to the last answer
	First            ms               `json:"first_answers_ms"` // until each send has its first answer, if only to come later
	Answers          int              `json:"answers"`
	AnswersPerSecond float64          `json:"answers_per_second"`
	Final            map[string]int64 `json:"final"` // answers that ended a send, by kind
	Again            map[string]int64 `json:"again"` // answers after which it was sent again
	Replayed         int64            `json:"replayed"`
	Cuts             int64            `json:"connections_cut"`
	Lost             int64            `json:"connections_lost"`
	GaveUp           int64            `json:"gave_up"`
	AnswerTime       times            `json:"answer_time_ms"` // from request written to answer read
	BellTime         times            `json:"bell_time_ms"`   // from the bell to answer read
	CPUPerAnswer     float64          `json:"cpu_us_per_answer"`
	Baseline         *baseline        `json:"baseline,omitempty"`
	Settling         ms               `json:"settling_ms"`
	Told             told             `json:"told"`
	Books            books            `json:"books"`
	SoldBefore       int64            `json:"sold_before"`
	Lookup           lookup           `json:"lookup"`
	Verdict          verdict          `json:"verdict"`
	Line             string           `json:"line"`
}

// baseline is the same crowd at the bare handler.
type baseline struct {
	Elapsed          ms      `json:"elapsed_ms"`
	AnswersPerSecond float64 `json:"answers_per_second"`
	AnswerTime       times   `json:"answer_time_ms"`
	CPUPerAnswer     float64 `json:"cpu_us_per_answer"`
	Ratio            float64 `json:"ratio"` // elapsed at the shop / elapsed at the bare handler
	// The same without the time that buyers wait because a Retry-After says so.
	FirstRatio float64 `json:"first_ratio"`
}

// ms is a time in milliseconds, to three places.
type ms float64

func inMS(d time.Duration) ms { return ms(d.Round(time.Microsecond).Microseconds()) / 1000 }

func (m ms) String() string {
	if m >= 10_000 {
		return fmt.Sprintf("%.1f s", float64(m)/1000)
	}
	return fmt.Sprintf("%.1f ms", float64(m))
}

// times is a spread in JSON.
type times struct {
	P50 ms `json:"p50"`
	P95 ms `json:"p95"`
	P99 ms `json:"p99"`
	Max ms `json:"max"`
}

func (s spread) times() times { return times{inMS(s.P50), inMS(s.P95), inMS(s.P99), inMS(s.Max)} }

func (o *outcome) perSecond() float64 {
	if o.elapsed <= 0 {
		return 0
	}
	return float64(len(o.samples)) / o.elapsed.Seconds()
}

// cpuPerAnswer is in microseconds; with the shop in this process it is both.
func (o *outcome) cpuPerAnswer() float64 {
	if len(o.samples) == 0 {
		return 0
	}
	return float64(o.cpu.Microseconds()) / float64(len(o.samples))
}

func (f *findings) report() *report {
	o := f.outcome
	took, since := latencies(o.samples)
	r := &report{
		URL: f.url, Run: f.run, Users: f.cfg.users, Conns: f.cfg.conns, Duplicates: f.cfg.duplicates, Cut: f.cfg.cut,
		Opening: inMS(o.opening), Elapsed: inMS(o.elapsed), First: inMS(o.first), Answers: len(o.samples), AnswersPerSecond: o.perSecond(),
		Replayed: f.tally.replayed.Load(), Cuts: f.tally.cuts.Load(), Lost: f.tally.lost.Load(), GaveUp: f.tally.gaveUp.Load(),
		AnswerTime: took.times(), BellTime: since.times(), CPUPerAnswer: o.cpuPerAnswer(),
		Settling: inMS(f.settling), Told: f.evidence.told, Books: f.evidence.after, SoldBefore: f.evidence.before.Stock.Sold,
		Lookup: f.evidence.lookup, Verdict: f.verdict, Line: f.verdict.line(),
	}
	r.Final, r.Again = f.tally.byKind()
	if b := f.baseline; b != nil {
		took, _ := latencies(b.samples)
		r.Baseline = &baseline{
			Elapsed: inMS(b.elapsed), AnswersPerSecond: b.perSecond(), AnswerTime: took.times(), CPUPerAnswer: b.cpuPerAnswer(),
			Ratio: o.elapsed.Seconds() / b.elapsed.Seconds(), FirstRatio: o.first.Seconds() / b.elapsed.Seconds(),
		}
	}
	return r
}

// text is the report for people. The audit's line is the last.
func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d buyers over %d connections (opened in %v) at %s, run %s\n", r.Users, r.Conns, r.Opening, r.URL, r.Run)
	fmt.Fprintf(&b, "%d answers in %v, %.0f/s; each request had its first after %v", r.Answers, r.Elapsed, r.AnswersPerSecond, r.First)
	if r.CPUPerAnswer > 0 {
		fmt.Fprintf(&b, "; CPU of this process %.1f µs per answer", r.CPUPerAnswer)
	}
	fmt.Fprintln(&b)
	b.WriteString(aligned(
		counts("final", r.Final)+
			counts("sent again", r.Again)+
			counts("of these", map[string]int64{"replayed": r.Replayed})+
			counts("connections", map[string]int64{"cut on purpose": r.Cuts, "lost": r.Lost})+
			counts("given up", map[string]int64{"sends": r.GaveUp}),
	) + "\n")
	times := "\tp50\tp95\tp99\tmax\t\n" + r.AnswerTime.row("request written to answer read") + r.BellTime.row("bell to answer read")
	if r.Baseline != nil {
		times += r.Baseline.AnswerTime.row("bare handler, written to read")
	}
	b.WriteString(aligned(times) + "\n")
	if l := r.Baseline; l != nil {
		fmt.Fprintf(&b, "bare handler: %v, %.0f/s; the shop takes %.2f times as long, to each first answer %.2f times\n",
			l.Elapsed, l.AnswersPerSecond, l.Ratio, l.FirstRatio)
	}
	if r.SoldBefore > 0 {
		fmt.Fprintf(&b, "%d units were sold before this run\n", r.SoldBefore)
	}
	fmt.Fprintf(&b, "settled in %v after the last answer\n%s\n", r.Settling, r.Line)
	return b.String()
}

// aligned lines up the columns of a table, whose cells end in tabs.
func aligned(cells string) string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = io.WriteString(table, cells) // into memory: neither can fail
	_ = table.Flush()
	return b.String()
}

// counts lists the figures that are not zero, the largest first.
func counts(what string, figures map[string]int64) string {
	labels := slices.SortedFunc(maps.Keys(figures), func(a, b string) int {
		return cmp.Or(cmp.Compare(figures[b], figures[a]), cmp.Compare(a, b))
	})
	var b strings.Builder
	for _, label := range labels {
		if figures[label] != 0 {
			fmt.Fprintf(&b, "%s\t%d\t  %s\n", what, figures[label], label)
			what = ""
		}
	}
	return b.String()
}

func (t times) row(what string) string {
	return fmt.Sprintf("%s\t%v\t%v\t%v\t%v\t\n", what, t.P50, t.P95, t.P99, t.Max)
}
