// Package limittest has the suite that every [ratelimit.Limiter] passes. It is
// for tests only.
package limittest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/ratelimit"
)

// Harness tells the suite how to make limiters.
type Harness struct {
	// New returns a limiter whose buckets may be shared with other tests.
	New func(t *testing.T) ratelimit.Limiter
	// Bubble returns a limiter inside a testing/synctest bubble, whose clock
	// is the bubble's. Nil where there is no such stand-in; the subtests on
	// time then don't run.
	Bubble func(t *testing.T) ratelimit.Limiter
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(&fixture{T: t, limiter: h.New(t)})
		})
	}
	if h.Bubble == nil {
		return
	}
	for _, c := range timedCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { c.run(&fixture{T: t, limiter: h.Bubble(t)}) })
		})
	}
}

type testCase struct {
	name string
	run  func(*fixture)
}

var cases = []testCase{
	{"Take_BurstPassesAndTheNextIsDenied", burst},
	{"Take_200AtOnceBelowTheLimitAllPass", belowLimit},
	{"Take_500AtOnceAdmitExactlyTheLimit", exactlyLimit},
	{"Take_DenialOfOneChargesNone", allOrNothing},
	{"Take_DeniedAttemptIsNotCharged", deniedFree},
	{"Take_CostAboveCapacityIsDeniedForEver", permanent},
	{"Take_QuotaZeroDeniesAll", zero},
	{"Take_CostZeroLooksAndChargesNothing", peek},
	{"Take_InvalidArgumentsAreRefused", invalid},
	{"Take_KeysAndNamesNeverMeet", separate},
	{"Take_EndedContextIsObeyed", contextEnded},
	{"Refund_GivesTheChargeBackOnce", refund},
	{"Refund_OfADenialGivesNothing", refundDenied},
}

var timedCases = []testCase{
	{"RetryAfter_WaitingThatLongPassesAndNoShorter", retryAfter},
	{"ResetAfter_ThenAWholeBurstPasses", resetAfter},
	{"Rate_ThirdsAddUpWithoutDrift", thirds},
	{"Window_BurstPlusWhatDrainsPasses", windowPlain},
	{"Window_StrictNeverPassesMoreThanQuota", windowStrict},
	{"Refund_LongAfterGivesNothing", refundLate},
}

type fixture struct {
	*testing.T
	limiter ratelimit.Limiter
}

var keys atomic.Int64

// key is one that no other test has.
func (f *fixture) key() string { return fmt.Sprintf("%s-%d", f.Name(), keys.Add(1)) }

func (f *fixture) take(takes ...ratelimit.Take) ratelimit.Decision {
	f.Helper()
	d, err := f.limiter.Take(f.Context(), takes...)
	if err != nil {
		f.Fatalf("Take: %v", err)
	}
	if len(d.Statuses) != len(takes) {
		f.Fatalf("%d statuses for %d takes", len(d.Statuses), len(takes))
	}
	return d
}

func (f *fixture) want(d ratelimit.Decision, allowed bool, remaining ...int64) {
	f.Helper()
	if d.Allowed != allowed {
		f.Fatalf("allowed is %v, want %v: %+v", d.Allowed, allowed, d)
	}
	for i, r := range remaining {
		if d.Statuses[i].Remaining != r {
			f.Fatalf("limit %d: %d remain, want %d", i, d.Statuses[i].Remaining, r)
		}
	}
	if allowed && (d.RetryAfter != 0 || d.Permanent) {
		f.Fatalf("allowed with RetryAfter %v, Permanent %v", d.RetryAfter, d.Permanent)
	}
}

// Limits of tests on real servers use a day, so that nothing drains meanwhile.
func perDay(name string, quota int64) ratelimit.Limit {
	return ratelimit.Limit{Name: name, Quota: quota, Window: 24 * time.Hour}
}

func one(l ratelimit.Limit, key string) ratelimit.Take {
	return ratelimit.Take{Limit: l, Key: key, Cost: 1}
}

func burst(f *fixture) {
	t := one(perDay("burst", 3), f.key())
	for left := int64(2); left >= 0; left-- {
		f.want(f.take(t), true, left)
	}
	d := f.take(t)
	f.want(d, false, 0)
	if d.Permanent || d.RetryAfter <= 7*time.Hour || d.RetryAfter > 8*time.Hour {
		f.Fatalf("RetryAfter %v, Permanent %v, want just under 8h", d.RetryAfter, d.Permanent)
	}
	if d.Statuses[0].Allowed {
		f.Fatal("the limit that denied says it allowed")
	}
}

// crowd takes n times at once and returns how many passed.
func (f *fixture) crowd(n int, takes ...ratelimit.Take) int64 {
	f.Helper()
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			d, err := f.limiter.Take(f.Context(), takes...)
			if err != nil {
				f.Errorf("Take: %v", err)
			}
			if d.Allowed {
				passed.Add(1)
			}
		})
	}
	wg.Wait()
	return passed.Load()
}

func belowLimit(f *fixture) {
	if n := f.crowd(200, one(perDay("below", 1000), f.key())); n != 200 {
		f.Fatalf("%d of 200 passed", n)
	}
}

func exactlyLimit(f *fixture) {
	if n := f.crowd(500, one(perDay("exact", 100), f.key())); n != 100 {
		f.Fatalf("%d of 500 passed, want 100", n)
	}
}

func allOrNothing(f *fixture) {
	wide, narrow := one(perDay("wide", 100), f.key()), one(perDay("narrow", 1), f.key())
	f.want(f.take(wide, narrow), true, 99, 0)
	d := f.take(wide, narrow)
	f.want(d, false)
	if !d.Statuses[0].Allowed || d.Statuses[1].Allowed {
		f.Fatalf("statuses %+v, want the second to deny", d.Statuses)
	}
	f.want(f.take(narrow, wide), false)
	wide.Cost = 0
	f.want(f.take(wide), true, 99)
}

func deniedFree(f *fixture) {
	t := one(perDay("denied", 10), f.key())
	t.Cost = 8
	f.want(f.take(t), true, 2)
	for range 5 {
		f.want(f.take(t), false, 2)
	}
	t.Cost = 2
	f.want(f.take(t), true, 0)
}

func permanent(f *fixture) {
	t := one(perDay("permanent", 10), f.key())
	t.Cost = 11
	other := one(perDay("other", 10), f.key())
	d := f.take(other, t)
	f.want(d, false, 10, 10)
	if !d.Permanent || d.RetryAfter != 0 {
		f.Fatalf("Permanent %v, RetryAfter %v, want true and none", d.Permanent, d.RetryAfter)
	}
}

func zero(f *fixture) {
	d := f.take(one(perDay("zero", 0), f.key()))
	f.want(d, false, 0)
	if !d.Permanent || d.RetryAfter != 0 {
		f.Fatalf("Permanent %v, RetryAfter %v, want true and none", d.Permanent, d.RetryAfter)
	}
}

func peek(f *fixture) {
	t := one(perDay("peek", 2), f.key())
	look := t
	look.Cost = 0
	f.want(f.take(look), true, 2)
	f.want(f.take(t), true, 1)
	f.want(f.take(look), true, 1)
	f.want(f.take(t), true, 0)
	f.want(f.take(look), true, 0)
}

func invalid(f *fixture) {
	good := one(perDay("good", 10), f.key())
	edit := func(change func(*ratelimit.Take)) []ratelimit.Take {
		t := good
		change(&t)
		return []ratelimit.Take{t}
	}
	bad := map[string][]ratelimit.Take{
		"no takes":         nil,
		"same bucket":      {good, good},
		"negative cost":    edit(func(t *ratelimit.Take) { t.Cost = -1 }),
		"huge cost":        edit(func(t *ratelimit.Take) { t.Cost = 1<<53 + 1 }),
		"empty key":        edit(func(t *ratelimit.Take) { t.Key = "" }),
		"huge key":         edit(func(t *ratelimit.Take) { t.Key = strings.Repeat("k", 4097) }),
		"no name":          edit(func(t *ratelimit.Take) { t.Limit.Name = "" }),
		"name with quote":  edit(func(t *ratelimit.Take) { t.Limit.Name = `a";q=9` }),
		"negative quota":   edit(func(t *ratelimit.Take) { t.Limit.Quota = -1 }),
		"huge quota":       edit(func(t *ratelimit.Take) { t.Limit.Quota = math.MaxInt64 }),
		"no window":        edit(func(t *ratelimit.Take) { t.Limit.Window = 0 }),
		"negative window":  edit(func(t *ratelimit.Take) { t.Limit.Window = -time.Second }),
		"negative burst":   edit(func(t *ratelimit.Take) { t.Limit.Burst = -1 }),
		"huge burst":       edit(func(t *ratelimit.Take) { t.Limit.Burst = math.MaxInt64 }),
		"burst for ages":   edit(func(t *ratelimit.Take) { t.Limit.Burst = 1 << 30 }),
		"strict and burst": edit(func(t *ratelimit.Take) { t.Limit.Strict, t.Limit.Burst = true, 11 }),
	}
	for name, takes := range bad {
		if _, err := f.limiter.Take(f.Context(), takes...); !errors.Is(err, ratelimit.ErrInvalid) {
			f.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	f.want(f.take(good), true, 9)
}

func separate(f *fixture) {
	base := f.key()
	pairs := [][2]string{
		{"a", "b" + base}, {"ab", base}, {"a", "b}" + base}, {"a", "{b" + base}, {"a", "b\x00" + base}, {"a", "b:" + base},
	}
	for _, p := range pairs {
		f.want(f.take(one(perDay(p[0], 1), p[1])), true, 0)
	}
}

func contextEnded(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	t := one(perDay("ended", 1), f.key())
	_, err := f.limiter.Take(ctx, t)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, ratelimit.ErrUnavailable) {
		f.Fatalf("Take: %v, want context.Canceled and ErrUnavailable", err)
	}
	f.want(f.take(t), true, 0)
}

func refund(f *fixture) {
	t := one(perDay("refund", 10), f.key())
	t.Cost = 4
	d := f.take(t)
	f.want(d, true, 6)
	if err := f.limiter.Refund(f.Context(), d); err != nil {
		f.Fatal(err)
	}
	t.Cost = 0
	f.want(f.take(t), true, 10)
	// Never above the capacity, however often.
	if err := f.limiter.Refund(f.Context(), d); err != nil {
		f.Fatal(err)
	}
	f.want(f.take(t), true, 10)
}

func refundDenied(f *fixture) {
	t := one(perDay("refunddenied", 2), f.key())
	t.Cost = 2
	f.want(f.take(t), true, 0)
	d := f.take(t)
	f.want(d, false, 0)
	if err := f.limiter.Refund(f.Context(), d); err != nil {
		f.Fatal(err)
	}
	t.Cost = 0
	f.want(f.take(t), true, 0)
}

func retryAfter(f *fixture) {
	t := one(ratelimit.Limit{Name: "retry", Quota: 7, Window: time.Second, Burst: 3}, f.key())
	slow := one(ratelimit.Limit{Name: "slow", Quota: 1, Window: 5 * time.Second}, f.key())
	f.want(f.take(t, slow), true)
	d := f.take(t, slow)
	f.want(d, false)
	time.Sleep(d.RetryAfter - 2*time.Microsecond)
	f.want(f.take(t, slow), false)
	time.Sleep(2 * time.Microsecond)
	f.want(f.take(t, slow), true)
}

func resetAfter(f *fixture) {
	t := one(ratelimit.Limit{Name: "reset", Quota: 10, Window: time.Second}, f.key())
	t.Cost = 3
	d := f.take(t)
	f.want(d, true, 7)
	if got := d.Statuses[0].ResetAfter; got != 300*time.Millisecond {
		f.Fatalf("ResetAfter %v, want 300ms", got)
	}
	if got := time.Until(d.Statuses[0].ResetAt); got != 300*time.Millisecond {
		f.Fatalf("ResetAt is in %v, want 300ms", got)
	}
	time.Sleep(300 * time.Millisecond)
	t.Cost = 10
	f.want(f.take(t), true, 0)
}

func thirds(f *fixture) {
	t := one(ratelimit.Limit{Name: "thirds", Quota: 3, Window: time.Second, Burst: 1}, f.key())
	passed := 0
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		d := f.take(t)
		if d.Allowed {
			passed++
		}
		time.Sleep(d.Statuses[0].ResetAfter)
	}
	// Waits are rounded up to a microsecond, at most 90 in all.
	if passed != 90 {
		f.Fatalf("%d passed in 30 s at 3/s, want 90", passed)
	}
}

// admit takes as greedily as can be for total, and returns the times at which
// one passed.
func (f *fixture) admit(t ratelimit.Take, total time.Duration) []time.Time {
	var passed []time.Time
	for end := time.Now().Add(total); time.Now().Before(end); {
		d := f.take(t)
		if d.Allowed {
			passed = append(passed, time.Now())
		}
		time.Sleep(d.RetryAfter)
	}
	return passed
}

// most returns the largest number of times within any stretch of length window.
func most(times []time.Time, window time.Duration) int {
	best, from := 0, 0
	for to := range times {
		for times[to].Sub(times[from]) >= window {
			from++
		}
		best = max(best, to-from+1)
	}
	return best
}

func windowPlain(f *fixture) {
	l := ratelimit.Limit{Name: "plain", Quota: 17, Window: 30 * time.Second}
	if n := most(f.admit(one(l, f.key()), 2*time.Minute), l.Window); n != 33 && n != 34 {
		f.Fatalf("%d passed within one window, want 33 or 34: a burst and what drains", n)
	}
}

func windowStrict(f *fixture) {
	for _, l := range []ratelimit.Limit{
		{Name: "strict", Quota: 17, Window: 30 * time.Second, Strict: true},
		{Name: "strict-all", Quota: 17, Window: 30 * time.Second, Burst: 17, Strict: true},
		{Name: "strict-one", Quota: 1, Window: 30 * time.Second, Strict: true},
	} {
		if n := most(f.admit(one(l, f.key()), 2*time.Minute), l.Window); n != int(l.Quota) {
			f.Fatalf("%s: %d passed within one window, want %d", l.Name, n, l.Quota)
		}
	}
}

func refundLate(f *fixture) {
	t := one(ratelimit.Limit{Name: "late", Quota: 10, Window: time.Second}, f.key())
	t.Cost = 10
	d := f.take(t)
	f.want(d, true, 0)
	time.Sleep(time.Second)
	f.want(f.take(t), true, 0)
	if err := f.limiter.Refund(f.Context(), d); err != nil {
		f.Fatal(err)
	}
	t.Cost = 1
	f.want(f.take(t), false, 0)
}
