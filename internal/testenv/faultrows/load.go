package faultrows

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Call is one call of what is tried. The i-th is independent of the others.
type Call func(ctx context.Context, i int) error

// Load is a steady stream of calls, each in a goroutine of its own, as requests
// reach a server: it does not wait for answers.
type Load struct {
	Rate     int           // calls per second
	Long     time.Duration // how long new ones begin
	Patience time.Duration // how long each waits for its answer
}

// Toll is what became of a load.
type Toll struct {
	Calls, Failed int
	// Back is when the first call began after which none failed, from the start
	// of the load.
	Back time.Duration
	// Median and Mean are of all calls, failed ones included.
	Median, Mean time.Duration
	// First is the first failure.
	First error
}

// OK is how many calls succeeded.
func (t Toll) OK() int { return t.Calls - t.Failed }

func (t Toll) String() string {
	text := fmt.Sprintf("%d ok, %d failed, back after %v, median %v, mean %v",
		t.OK(), t.Failed, t.Back.Round(time.Millisecond), t.Median.Round(10*time.Microsecond), t.Mean.Round(10*time.Microsecond))
	if t.First != nil {
		text += fmt.Sprintf(" (first: %.160s)", t.First)
	}
	return text
}

// answer is one call's.
type answer struct {
	begun, took time.Duration
	err         error
}

// Run puts the load on call and waits for the last answer.
func (l Load) Run(ctx context.Context, call Call) Toll {
	answers := make([]answer, int(l.Long.Seconds()*float64(l.Rate)))
	pause := time.Second / time.Duration(l.Rate)
	start := time.Now()
	var all sync.WaitGroup
	for i := range answers {
		time.Sleep(time.Until(start.Add(time.Duration(i) * pause)))
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, l.Patience)
			defer cancel()
			begun := time.Now()
			err := call(ctx, i)
			answers[i] = answer{begun.Sub(start), time.Since(begun), err}
		})
	}
	all.Wait()
	return count(answers)
}

// Loop has callers call one after the other for a time, and tells what became
// of it.
func Loop(ctx context.Context, callers int, long time.Duration, call Call) Toll {
	each := make([][]answer, callers)
	start := time.Now()
	var all sync.WaitGroup
	for c := range each {
		all.Go(func() {
			for n := 0; time.Since(start) < long; n++ {
				begun := time.Now()
				err := call(ctx, n*callers+c)
				each[c] = append(each[c], answer{begun.Sub(start), time.Since(begun), err})
			}
		})
	}
	all.Wait()
	return count(slices.Concat(each...))
}

func count(answers []answer) Toll {
	toll := Toll{Calls: len(answers)}
	slices.SortFunc(answers, func(a, b answer) int { return int(a.begun - b.begun) })
	last := -1
	times := make([]time.Duration, len(answers))
	for i, a := range answers {
		times[i] = a.took
		toll.Mean += a.took / time.Duration(len(answers))
		if a.err != nil {
			toll.Failed++
			last = i
			if toll.First == nil {
				toll.First = a.err
			}
		}
	}
	switch {
	case last == len(answers)-1 && last >= 0:
		toll.Back = answers[last].begun + answers[last].took // it never was
	case last >= 0:
		toll.Back = answers[last+1].begun
	}
	if len(times) > 0 {
		slices.Sort(times)
		toll.Median = times[len(times)/2]
	}
	return toll
}
