package journal_test

import (
	"testing"

	"github.com/firstcome/firstcome/internal/testenv"
)

// mutants remove one guard each, in a copy of the file that only the compiler
// sees; the named test must then fail. A guard that can go without a test
// noticing is either not needed or not tested.
var mutants = []struct{ name, file, guard, without, test string }{
	{"TrimmingAllThatWasRead", "page.go", `return it.entry
`, `continue
`, "TestRelay_TrimsOnlyUpTo"},
	{"TrimmingAnEntryOfWhichAPartWasSent", "page.go", `return it.entry
`, `return it.entry + 1
`, "TestRelay_TrimsOnlyUpTo"},
	{"GoingOnAfterARefusal", "publish.go", `if err := p.publish(ctx, left[:n]); err != nil {`, `if err := p.publish(ctx, left[:n]); err != nil && g.bad != nil {`,
		"TestRelay|TestRelays"},
	{"AKeyThatGoesOnPastItsRefusal", "publish.go", `						stop()
						return
`, ``, "TestRelay_TrimsOnlyUpTo|TestRelays"},
	{"SendingAgainWhatCouldNotBeTrimmed", "page.go", `acked: p.acked[at]`, `acked: false`,
		"TestRelay_AfterATrimThatFailed"},
	{"TakingAnEventForAnotherOfItsNumbers", "page.go", `place{entries[i].Position, j}`, `place{n: int(e.Epoch<<32 + e.Seq)}`,
		"TestRelay_WhatHasTheNumbers"},
	{"TrimmingWhateverStandsInFront", trimLua, `if not last then break end`, `last = last or pos`,
		"TestRedis_AFailover"},
	{"TrimmingAnotherEventOfTheSameNumbers", trimLua, `if not last then break end`, `last = last or pos`,
		"TestRedis_WhatHasTheNumbers"},
	{"ForgettingWhatWasSentBehindAGap", "pool.go", `p.acked = page.acked(whole)`, `p.acked = nil`,
		"TestRelay_TrimsOnlyUpTo"},
	{"ARefusalThatIsTriedLikeAnOutage", "pool.go", `if !errors.As(err, &refusal) {`, `if !errors.As(err, &refusal) || true {`,
		"TestRelay_ARefusedEvent"},
	{"EventsOfNoUse", "page.go", `if err := e.check(p.name); err != nil {`, `if err := e.check(p.name); false {`,
		"TestRelay_WhatNoConsumer"},
	{"PassingAnEventOfNoUse", "page.go", `if g.bad != nil && it.event == g.bad.event {`, `if false {`,
		"TestRelay_WhatNoConsumer"},
	{"HammeringAnAbsentBroker", "publish.go", `	if p.fails > 0 {
		size = 1
	}
`, ``, "TestRelay_AnAbsentBroker"},
	{"WakingUpIntoAnOutage", "pool.go", `if deaf {`, `if deaf && p.fails < 0 {`, "TestRelay_AnAbsentBroker"},
	{"AnIDWithoutTheEpoch", "event.go", `strconv.FormatInt(e.Epoch, 10) + "/"`, `"1/"`, "TestMessage|TestRedis_EventsOfBothEpochs"},
	{"ADrainThatCancels", "session.go", `context.WithCancel(context.WithoutCancel(ctx))`, `context.WithCancel(ctx)`, "TestRun_Drains"},
	{"ADrainThatBeginsMore", "publish.go", `if ctx.Err() != nil {
			return ctx.Err()`, `if ctx.Err() != nil && size < 0 {
			return ctx.Err()`, "TestRun_Drains"},
	{"ADrainThatDoesNotTrim", "pool.go", `	if err := p.trim(page); err`, `	if ctx.Err() != nil {
		return 0, true
	}
	if err := p.trim(page); err`, "TestRun_Drains"},
	{"TrimmingAfterRunHasReturned", "session.go", `defer s.stop() //`, `//`, "TestRun_GivesUp"},
	{"WorkingWithoutTheLease", "pool.go", `} else if !mine {`, `} else if !mine && p.leaser == nil {`, "TestLease"},
	{"KeepingTheLease", "pool.go", `defer p.giveBack()`, ``, "TestLease"},
	{"ReadingAlwaysAsMuch", "pool.go", `p.opts.PageEvents*len(page.entries)/len(page.items)`, `p.opts.PageEvents*len(page.entries)`,
		"TestRelay_ReadsLittle"},
	{"TwoOfOnePoolInOneRun", "session.go", `if !wanted[name] {`, `if false {`, "TestPools"},
	{"AnotherVersionTakenForOurs", "event.go", `if read.Version != Version {`, `if false {`, "TestEvent"},
}

// trimLua is the step by which redisstock keeps the promise of TrimJournal.
const trimLua = "../../stock/redisstock/scripts/trim.lua"

func TestMutants_EachGuardIsMissedByATest(t *testing.T) {
	for _, m := range mutants {
		testenv.Mutant{Name: m.name, File: m.file, Guard: m.guard, Without: m.without, Test: m.test}.MustBeMissed(t)
	}
}
