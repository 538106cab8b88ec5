package main

import (
	"math"
	"slices"
	"time"
)

// sample is one answer: how long after its request was written, and when since
// the bell, it was read.
type sample struct {
	took, since time.Duration
	first       bool // of its send
}

// spread is exact, from every sample: the answers fit in memory, and a
// histogram's buckets are coarsest where it matters, at the slow end.
type spread struct{ P50, P95, P99, Max time.Duration }

// spreadOf sorts its argument.
func spreadOf(all []time.Duration) spread {
	slices.Sort(all)
	return spread{rank(all, 0.50), rank(all, 0.95), rank(all, 0.99), rank(all, 1)}
}

// rank is the smallest sample that a share p of all samples do not exceed
// (the nearest-rank percentile); 0 of none.
func rank(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// latencies splits the samples into both spreads.
func latencies(samples []sample) (took, since spread) {
	one, two := make([]time.Duration, len(samples)), make([]time.Duration, len(samples))
	for i, s := range samples {
		one[i], two[i] = s.took, s.since
	}
	return spreadOf(one), spreadOf(two)
}
