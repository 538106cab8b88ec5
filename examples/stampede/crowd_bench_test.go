package main

import (
	"context"
	"testing"
	"time"
)

// BenchmarkGenerator_AgainstTheBareHandler sends one purchase per iteration
// over 1,000 connections to the bare handler in a child process, and reports
// the generator's own CPU time per request.
func BenchmarkGenerator_AgainstTheBareHandler(b *testing.B) {
	url, stop, err := startBareChild(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer stop()
	t, err := parseTarget(url)
	if err != nil {
		b.Fatal(err)
	}
	cfg := config{users: max(b.N, 1000), conns: 1000, sku: "ticket"}
	c, err := newCrowd(cfg, t, "bench")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	b.ReportAllocs()
	b.ResetTimer()
	out, err := c.run(ctx, func(*crowd) func() { return func() {} })
	if err != nil || out.interrupted {
		b.Fatalf("run: %v, %d unanswered", err, c.pending.Load())
	}
	requests := float64(len(out.samples))
	b.ReportMetric(requests/out.elapsed.Seconds(), "requests/s")
	b.ReportMetric(float64(out.cpu.Microseconds())/requests, "cpu-µs/request")
}
