package outbox_test

import (
	"testing"

	"github.com/firstcome/firstcome/internal/testenv"
)

// mutants remove one guard each, in a copy of the file that only the compiler
// sees; the named test must then fail. A guard that can go without a test
// noticing is either not needed or not tested.
var mutants = []struct{ name, file, guard, without, pkg, test string }{
	{"ADeleteOfEverythingRead", "sqloutbox/settle.go", `seq IN ("+list+") AND id IN ("+list+")`, `(1 = 1 OR seq IN ("+list+") OR id IN ("+list+"))`,
		"./sqloutbox", "TestConformance/SQLite/Settle_DeletesExactlyTheNamedRows"},
	{"ADeleteWithoutTheID", "sqloutbox/settle.go", `AND id IN ("+list+")`, `AND (1 = 1 OR id IN ("+list+"))`,
		"./sqloutbox", "TestConformance/SQLite/Settle_SparesARowOfAnotherID"},
	{"ADeleteWithoutTheEpoch", "sqloutbox/settle.go", `l.epoch = ?)"`, `l.epoch >= 0 * ?)"`,
		"./sqloutbox", "TestConformance/SQLite/Settle_OfAnOlderEpochDeletesNothing"},
	{"ParkingWithoutTheEpoch", "sqloutbox/park.go", `AND epoch = ? AND`, `AND epoch >= 0 * ? AND`,
		"./sqloutbox", "TestConformance/SQLite/Park_IsFenced"},
	{"ParkingOverAnOperatorsHand", "sqloutbox/park.go", `rewinds = ?"`, `rewinds >= 0 * ?"`,
		"./sqloutbox", "TestConformance/SQLite/Park_IsFenced"},
	{"TakingALaneWithoutANewEpoch", "sqloutbox/lease.go", `epoch = epoch + 1`, `epoch = epoch`,
		"./sqloutbox", "TestConformance/SQLite/Lease_SpreadsLanes"},
	{"AKeyThatGoesOnPastARefusal", "keystate.go", `return k.parking || !k.notBefore.IsZero()`, `return false`,
		".", "TestRelay_AnyNumberOfRefusalsNeverChangesAKeysOrder"},
	{"TwoMessagesOfAKeyUnderWay", "keystate.go", `!k.listed && k.sent == 0 &&`, `!k.listed &&`,
		".", "TestRelay_RandomTroubleInOneLane"},
	{"ACatchUpFromTheMiddle", "sweep.go", `k.missed != la.catchUp && la.catchUp.start < k.behind`, `true`,
		".", "TestRelay_RandomTroubleInOneLane"},
	{"AForwardReaderThatOvertakes", "reading.go", `case inside && (catchUp == nil || !la.serves(k)):`, `case false:`,
		".", "TestRelay_AHotKey|TestRelay_AKeyInBackoff"},
	{"NoSweepForLateCommits", "sweep.go", `if start < la.cursor {
		la.sweep =`, `if false {
		la.sweep =`, ".", "TestRelay_SkipsNothingHoweverLateATransactionCommits"},
	{"PublishingPastTheLease", "dispatch.go", `&& l.validUntil.Sub(now) >= l.opts.PublishTimeout {`, `{`,
		".", "TestRelay_SendsNothingAfterItsLease"},
	{"ACallBegunAfterAFreeze", "dispatch.go", `if !time.Now().Before(deadline) {`, `if false {`,
		".", "TestRelay_ACallThatBeginsTooLateIsNotMade"},
	{"ALaneGivenBackWithCallsOpen", "lanestate.go", `return la.open == 0 && la.unsaved == 0`, `return true`,
		".", "TestRelay_ALaneWithAnOpenCallIsNotGivenAway"},
	{"ARequeueThatIsNotNoticed", "reading.go", `if page.Rewinds != la.rewinds {`, `if false {`,
		".", "TestRelay_RequeueAndDropLetAHeldKeyGoOnInOrder"},
	{"AnOutageThatParks", "outcome.go", `case faultBroker:
		return false`, `case faultBroker:
		return true`, ".", "TestRelay_AnHourWithoutBroker"},
	{"AnUnnamedOutageThatParks", "outcome.go", `return len(l.suspects) < suspectKeys || l.accepted > k.accepted && k.tries > 1`, `return true`,
		".", "TestRelay_AnOutageThatThePublisherDoesNotName"},
	{"TopicsThatAreNotListed", "dispatch.go", `if !l.topics[r.Topic] {`, `if false {`,
		".", "TestRelay_ATopicThatIsNotListed"},
}

func TestMutants_EachGuardIsMissedByATest(t *testing.T) {
	for _, m := range mutants {
		testenv.Mutant{Name: m.name, File: m.file, Guard: m.guard, Without: m.without, Test: m.test, Package: m.pkg}.MustBeMissed(t)
	}
}
