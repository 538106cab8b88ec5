package worker_test

import (
	"testing"

	"github.com/firstcome/firstcome/internal/testenv"
)

// mutants remove one guard each, in a copy of the file that only the compiler
// sees; the named test must then fail.
var mutants = []struct{ name, file, guard, without, test string }{
	{"AnOutageThatCounts", "watch.go", `return waited >= w.opts.OutageLimit ||`, `return true ||`,
		"TestOutage_OfManyKeys/Recognised_1m20s"},
	{"AnUnknownOutageThatCounts", "watch.go", `return len(w.suspects) < suspectKeys ||`, `return true ||`,
		"TestOutage_OfManyKeys/Unknown.*_1m20s"},
	{"ABugThatIsImmortal", "watch.go", `othersGoOn || waited >= w.opts.OutagePatience`, `othersGoOn`,
		"TestWhichFailuresCount/ABugThatAllKeysMeet"},
	{"PoisonExcusedByPoison", "watch.go", `< suspectKeys || othersGoOn ||`, `< suspectKeys ||`,
		"TestWhichFailuresCount/ManyPoisonKeys"},
	{"NoTestimony", "watch.go", `w.finished-t.then >= testimony &&`, ``,
		"TestWhichFailuresCount/OneKeyUnavailable_AfterNineteen"},
	{"StaleTestimony", "watch.go", `>= testimony && othersGoOn`, `>= testimony`,
		"TestWhichFailuresCount/OneKeyUnavailable_AfterTwenty"},
	{"NoPatience", "watch.go", `waited >= w.opts.OutagePatience && w.finished`, `w.finished`,
		"TestWhichFailuresCount/OneKeyUnavailable_OthersGoOn"},
	{"NoLimit", "watch.go", `return waited >= w.opts.OutageLimit ||`, `return false ||`,
		"TestWhichFailuresCount/AllKeysUnavailable"},
	{"ContentionThatDelays", "watch.go", `t.conflicts <= passingConflicts`, `t.conflicts <= 0`,
		"TestContention"},
	{"ContentionThatSpins", "watch.go", `if n <= quickConflicts {`, `if true {`,
		"TestContention"},
	{"AllTryAtOnce", "watch.go", `case !w.narrow && sure &&`, `case false && sure &&`,
		"TestOutage_OfManyKeys/Recognised_1m20s"},
	{"HeldBackTooSoon", "watch.go", `&& now.Sub(w.since) >= settledFor`, ``,
		"TestOutage_OfSomeKeys"},
	{"OneLinePerKey", "watch.go", `!w.began.IsZero() ||`, ``,
		"TestOutage_OfManyKeys/Recognised_1m20s"},
	{"AHerdAtTheReturn", "probe.go", `if w.limit++; w.limit > w.opts.Concurrency`, `if w.limit++; w.limit > 1`,
		"TestOutage_AServerThatIsBack"},
	{"NeverWidened", "probe.go", `if w.limit++; w.limit`, `if w.limit += 0; w.limit`,
		"TestOutage_AServerThatIsBack"},
	{"AGrantThatIsLost", "work.go", `w.withdraw()`, `_ = w`,
		"TestOutage_AProbeThatIsTakenBack"},
	{"ATurnThatIsNotAskedFor", "probe.go", `if len(w.queue) > 0 || !w.isOpen(time.Now()) {`, `if false {`,
		"TestOutage_OfOneHandler"},
	{"AnAttemptThatNeverEndsInTheWay", "work.go", `w.outlasted(t, left)`, `_ = left`,
		"TestOutage_AnAttemptThatIgnoresItsTime"},
	{"AnInboxThatIsTheHandlersFault", "answer.go", `if errors.As(err, &inbox) {`, `if false && errors.As(err, &inbox) {`,
		"TestOutage_OfTheInbox_IsTheSame"},
	{"AnAttemptsOwnTimeoutAsAnOutage", "work.go", `answerOf(ctx, err)`, `answerOf(context.Background(), err)`,
		"TestOrder/HandlerThatIgnoresItsTime"},
	{"AGaugeThatStays", "watch.go", `w.telemetry.waits(w.handler, -1)`, ``,
		"TestTelemetry_TellsAnOutage"},
	{"ALetterThatIsNotTold", "work.go", `"event", t.d.id,
				"class"`, `"class"`,
		"TestDeadLetter_IsLogged"},
	{"ALogThatQuotesThePanic", "work.go", `return fmt.Sprintf("panic: %T", panicked.Value)`, `return fmt.Sprint("panic: ", panicked.Value)`,
		"TestLogs_"},
	{"ALogThatQuotesTheDecoder", "work.go", `return string(envelope.class)`, `return envelope.Error()`,
		"TestLogs_"},
}

func TestMutants_EachGuardIsMissedByATest(t *testing.T) {
	for _, m := range mutants {
		testenv.Mutant{Name: m.name, File: m.file, Guard: m.guard, Without: m.without, Test: m.test}.MustBeMissed(t)
	}
}
