package idemtest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/idempotency"
)

// Harness tells the suite how to make stores.
type Harness struct {
	// New returns a store that may hold records of other tests.
	New func(t *testing.T) idempotency.Store
	// Bubble returns a store inside a testing/synctest bubble, whose clock is
	// the bubble's. Nil where a store has no such stand-in; the subtests on
	// leases and retention then don't run.
	Bubble func(t *testing.T) idempotency.Store
}

const (
	lease     = 30 * time.Second
	retention = time.Hour
	linger    = 2 * time.Minute
)

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range slices.Concat(cases, lateCases) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(&fixture{T: t, store: h.New(t)})
		})
	}
	if h.Bubble == nil {
		return
	}
	for _, c := range slices.Concat(timedCases, lateTimedCases) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { c.run(&fixture{T: t, store: h.Bubble(t)}) })
		})
	}
}

type testCase struct {
	name string
	run  func(*fixture)
}

var cases = []testCase{
	{"Claim_FirstAttemptRuns", claimFirst},
	{"Claim_OneOfManyAtOnceRuns", claimOneOfMany},
	{"Claim_SecondAttemptHearsRunning", claimRunning},
	{"Claim_OtherPayloadIsAMismatchEvenInFlight", claimMismatch},
	{"Claim_OtherPayloadIsAMismatchOnceDoneAndTheResultStands", doneMismatch},
	{"Claim_SentTwiceAnswersTheSame", claimTwice},
	{"Claim_OtherIDsAreIndependent", claimIndependent},
	{"Look_ClaimsNothingForAKeyThatWasNeverSeen", lookAbsent},
	{"Look_TellsWhatAClaimWouldHearAndTakesNothing", lookSeen},
	{"Settle_ResultIsReplayedByteForByte", settleReplay},
	{"Settle_EmptyResultIsAResult", settleEmpty},
	{"Settle_SentTwiceChangesNothing", settleTwice},
	{"Settle_NotKeptNeverRunsAgain", settleNotKept},
	{"Settle_ReleasedKeyRunsAgainAndIsNotFirst", settleReleased},
	{"Settle_ReleasedKeyTakesAnotherPayload", settleReleasedPayload},
	{"Settle_AbandonedKeyIsRerunOrRefused", settleAbandoned},
	{"Settle_ReleaseAfterAnUnknownAttemptStaysUnknown", releaseAfterUnknown},
	{"Settle_ForeignTokenChangesNothing", settleForeign},
	{"Settle_LateCompletionOfATakenOverClaimIsRefused", settleLate},
	{"Settle_LateReleaseOfATakenOverClaimIsRefused", releaseLate},
	{"Settle_RecordTheStoreLostIsWrittenAgain", settleLost},
	{"Extend_ForeignOrSettledClaimIsStale", extendStale},
	{"Extend_RecordTheStoreLostIsWrittenAgain", extendLost},
	{"Replace_TakesTheUnknownClaimItNames", replaceNamed},
	{"Replace_OldVerdictTakesNothing", replaceOld},
	{"Context_EndedOneIsObeyed", contextEnded},
}

var timedCases = []testCase{
	{"Lease_EndsWithoutAWordAndTheNextAttemptReruns", leaseEnds},
	{"Lease_EndsWithoutAWordAndTheNextAttemptIsRefused", leaseEndsRefused},
	{"Lease_HeartbeatKeepsOthersOut", leaseExtended},
	{"Lease_LateCompletionStandsWhereNobodyTookOver", lateButAlone},
	{"Retention_ResultIsForgottenAfterItAndNotBefore", retentionEnds},
	{"Retention_ReleasedKeyIsForgottenSooner", releasedEnds},
	{"Retention_RunningClaimOfADeadOwnerIsForgottenInTheEnd", runningEnds},
	{"Started_IsTheFirstClaimsTimeOverAllAttempts", startedStays},
}

// fixture is one test's store and the shorthand of its steps.
type fixture struct {
	*testing.T
	store idempotency.Store
}

func (f *fixture) request() idempotency.ClaimRequest {
	req := idempotency.ClaimRequest{Terms: terms, Rerun: true}
	_, _ = rand.Read(req.ID[:])
	_, _ = rand.Read(req.Fingerprint[:])
	return f.again(req)
}

var terms = idempotency.Terms{Lease: lease, Retention: retention, Linger: linger}

// again is another attempt at the same operation.
func (f *fixture) again(req idempotency.ClaimRequest) idempotency.ClaimRequest {
	return f.begun(req, time.Now())
}

// begun is another attempt, of a process by whose clock it is then.
func (f *fixture) begun(req idempotency.ClaimRequest, then time.Time) idempotency.ClaimRequest {
	req.Replace, req.Token = idempotency.Token{}, idempotency.NewToken(then)
	return req
}

// otherPayload is another attempt with the same key.
func (f *fixture) otherPayload(req idempotency.ClaimRequest) idempotency.ClaimRequest {
	req = f.again(req)
	req.Fingerprint[0]++
	return req
}

func (f *fixture) refusing(req idempotency.ClaimRequest) idempotency.ClaimRequest {
	req = f.again(req)
	req.Rerun = false
	return req
}

// claim claims and wants the status.
func (f *fixture) claim(req idempotency.ClaimRequest, want idempotency.Status) idempotency.Record {
	f.Helper()
	rec, err := f.store.Claim(f.Context(), req)
	if err != nil {
		f.Fatalf("Claim: %v", err)
	}
	if rec.Status != want {
		f.Fatalf("Claim: status %d, want %d", rec.Status, want)
	}
	return rec
}

// hold claims and wants to get it.
func (f *fixture) hold(req idempotency.ClaimRequest) idempotency.Holder {
	f.Helper()
	return holder(req, f.claim(req, idempotency.Claimed))
}

func holder(req idempotency.ClaimRequest, rec idempotency.Record) idempotency.Holder {
	return idempotency.Holder{
		ID: req.ID, Token: req.Token, Fingerprint: req.Fingerprint, Attempt: rec.Attempt, Started: rec.Started,
	}
}

func (f *fixture) settle(h idempotency.Holder, o idempotency.Outcome, result string, want error) {
	f.Helper()
	s := idempotency.Settlement{Outcome: o, Retention: retention, UnknownRetention: retention, Linger: linger}
	if o == idempotency.OutcomeDone {
		s.Result = []byte(result)
	}
	if o == idempotency.OutcomeReleased {
		s.Retention = retention / 2
	}
	if err := f.store.Settle(f.Context(), h, s); !errors.Is(err, want) {
		f.Fatalf("Settle: %v, want %v", err, want)
	}
}

func (f *fixture) extend(h idempotency.Holder, want error) {
	f.Helper()
	err := f.store.Extend(f.Context(), h, terms)
	if !errors.Is(err, want) {
		f.Fatalf("Extend: %v, want %v", err, want)
	}
}

func (f *fixture) wantAttempt(rec idempotency.Record, want int) {
	f.Helper()
	if rec.Attempt != want {
		f.Fatalf("attempt %d, want %d", rec.Attempt, want)
	}
}

func (f *fixture) wantResult(rec idempotency.Record, want string) {
	f.Helper()
	if string(rec.Result) != want {
		f.Fatalf("result %q, want %q", rec.Result, want)
	}
}

func claimFirst(f *fixture) {
	rec := f.claim(f.request(), idempotency.Claimed)
	f.wantAttempt(rec, 1)
	if rec.Started.IsZero() {
		f.Fatal("Started is zero")
	}
}

func lookAbsent(f *fixture) {
	req := f.request()
	look := f.again(req)
	look.Look = true
	f.claim(look, idempotency.Absent)
	f.claim(look, idempotency.Absent)
	f.wantAttempt(f.claim(req, idempotency.Claimed), 1)
}

func lookSeen(f *fixture) {
	req := f.request()
	h := f.hold(req)
	look := f.again(req)
	look.Look = true
	f.claim(look, idempotency.Running)
	other := f.otherPayload(look)
	f.claim(other, idempotency.Mismatch)
	f.settle(h, idempotency.OutcomeReleased, "", nil)
	f.claim(look, idempotency.Seen)
	f.claim(look, idempotency.Seen)
	second := f.again(req)
	f.wantAttempt(f.claim(second, idempotency.Claimed), 2)
	f.settle(holder(second, idempotency.Record{Attempt: 2}), idempotency.OutcomeUnknown, "", nil)
	f.claim(look, idempotency.Seen)
	look.Rerun = false
	f.claim(look, idempotency.Unknown)
	f.settle(holder(second, idempotency.Record{Attempt: 2}), idempotency.OutcomeDone, "two", nil)
	f.wantResult(f.claim(look, idempotency.Done), "two")
}

func claimOneOfMany(f *fixture) {
	req := f.request()
	var wg sync.WaitGroup
	statuses := make(chan idempotency.Status, 100)
	for range cap(statuses) {
		wg.Go(func() {
			rec, err := f.store.Claim(f.Context(), f.again(req))
			if err != nil {
				f.Errorf("Claim: %v", err)
			}
			statuses <- rec.Status
		})
	}
	wg.Wait()
	close(statuses)
	counts := map[idempotency.Status]int{}
	for s := range statuses {
		counts[s]++
	}
	if counts[idempotency.Claimed] != 1 || counts[idempotency.Running] != 99 {
		f.Fatalf("statuses %v, want 1 claimed and 99 running", counts)
	}
}

func claimRunning(f *fixture) {
	req := f.request()
	f.hold(req)
	rec := f.claim(f.again(req), idempotency.Running)
	if rec.Lease <= 0 || rec.Lease > lease {
		f.Fatalf("lease left %v, want up to %v", rec.Lease, lease)
	}
}

func claimMismatch(f *fixture) {
	req := f.request()
	f.hold(req)
	f.claim(f.otherPayload(req), idempotency.Mismatch)
}

func doneMismatch(f *fixture) {
	req := f.request()
	f.settle(f.hold(req), idempotency.OutcomeDone, "paid", nil)
	f.claim(f.otherPayload(req), idempotency.Mismatch)
	f.wantResult(f.claim(f.again(req), idempotency.Done), "paid")
}

func claimTwice(f *fixture) {
	req := f.request()
	first := f.claim(req, idempotency.Claimed)
	second := f.claim(req, idempotency.Claimed)
	f.wantAttempt(second, 1)
	if !second.Started.Equal(first.Started) {
		f.Fatalf("started %v, then %v", first.Started, second.Started)
	}
}

func claimIndependent(f *fixture) {
	req := f.request()
	f.hold(req)
	req.ID[15]++
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 1)
}

func settleReplay(f *fixture) {
	req := f.request()
	all := make([]byte, 0, 1024)
	for i := range 1024 {
		all = append(all, byte(i))
	}
	f.settle(f.hold(req), idempotency.OutcomeDone, string(all), nil)
	f.wantResult(f.claim(f.again(req), idempotency.Done), string(all))
	f.wantResult(f.claim(f.refusing(req), idempotency.Done), string(all))
}

func settleEmpty(f *fixture) {
	req := f.request()
	f.settle(f.hold(req), idempotency.OutcomeDone, "", nil)
	f.wantResult(f.claim(f.again(req), idempotency.Done), "")
}

func settleTwice(f *fixture) {
	req := f.request()
	h := f.hold(req)
	f.settle(h, idempotency.OutcomeDone, "one", nil)
	f.settle(h, idempotency.OutcomeDone, "one", nil)
	f.settle(h, idempotency.OutcomeReleased, "", idempotency.ErrStale)
	f.settle(h, idempotency.OutcomeUnknown, "", idempotency.ErrStale)
	f.wantResult(f.claim(f.again(req), idempotency.Done), "one")
}

func settleNotKept(f *fixture) {
	req := f.request()
	f.settle(f.hold(req), idempotency.OutcomeNotKept, "", nil)
	f.claim(f.again(req), idempotency.NotKept)
	f.claim(f.otherPayload(req), idempotency.Mismatch)
}

func settleReleased(f *fixture) {
	req := f.request()
	h := f.hold(req)
	f.settle(h, idempotency.OutcomeReleased, "", nil)
	f.settle(h, idempotency.OutcomeReleased, "", nil)
	f.wantAttempt(f.claim(f.refusing(req), idempotency.Claimed), 2)
}

func settleReleasedPayload(f *fixture) {
	req := f.request()
	f.settle(f.hold(req), idempotency.OutcomeReleased, "", nil)
	other := f.otherPayload(req)
	f.hold(other)
	f.claim(f.again(req), idempotency.Mismatch)
}

func settleAbandoned(f *fixture) {
	req := f.request()
	h := f.hold(req)
	f.settle(h, idempotency.OutcomeUnknown, "", nil)
	rec := f.claim(f.refusing(req), idempotency.Unknown)
	if rec.Token != h.Token {
		f.Fatal("the unknown record does not name the attempt that ended so")
	}
	f.claim(f.otherPayload(req), idempotency.Mismatch)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 2)
}

func releaseAfterUnknown(f *fixture) {
	req := f.request()
	f.settle(f.hold(req), idempotency.OutcomeUnknown, "", nil)
	second := f.hold(f.again(req))
	f.settle(second, idempotency.OutcomeReleased, "", nil)
	f.settle(second, idempotency.OutcomeReleased, "", nil)
	f.claim(f.refusing(req), idempotency.Unknown)
	f.claim(f.otherPayload(req), idempotency.Mismatch)
}

func settleForeign(f *fixture) {
	req := f.request()
	h := f.hold(req)
	foreign := h
	foreign.Token[0]++
	for _, o := range []idempotency.Outcome{
		idempotency.OutcomeDone, idempotency.OutcomeNotKept, idempotency.OutcomeReleased, idempotency.OutcomeUnknown,
	} {
		f.settle(foreign, o, "foreign", idempotency.ErrStale)
	}
	f.settle(h, idempotency.OutcomeDone, "own", nil)
	f.wantResult(f.claim(f.again(req), idempotency.Done), "own")
}

// takeOver lets a second attempt take the claim of a first that was given up.
func (f *fixture) takeOver() (req idempotency.ClaimRequest, first, second idempotency.Holder) {
	f.Helper()
	req = f.request()
	first = f.hold(req)
	f.settle(first, idempotency.OutcomeUnknown, "", nil)
	second = f.hold(f.again(req))
	return req, first, second
}

func settleLate(f *fixture) {
	req, first, second := f.takeOver()
	f.settle(first, idempotency.OutcomeDone, "late", idempotency.ErrStale)
	f.claim(f.again(req), idempotency.Running)
	f.settle(second, idempotency.OutcomeDone, "second", nil)
	f.settle(first, idempotency.OutcomeDone, "late", idempotency.ErrStale)
	f.wantResult(f.claim(f.again(req), idempotency.Done), "second")
}

func releaseLate(f *fixture) {
	req, first, _ := f.takeOver()
	f.settle(first, idempotency.OutcomeReleased, "", idempotency.ErrStale)
	f.settle(first, idempotency.OutcomeUnknown, "", idempotency.ErrStale)
	f.claim(f.again(req), idempotency.Running)
}

// neverClaimed is the holder of a record that the store does not have.
func (f *fixture) neverClaimed() (idempotency.ClaimRequest, idempotency.Holder) {
	req := f.request()
	return req, holder(req, idempotency.Record{Attempt: 1, Started: time.Now()})
}

func settleLost(f *fixture) {
	req, h := f.neverClaimed()
	f.settle(h, idempotency.OutcomeDone, "kept", nil)
	f.wantResult(f.claim(f.again(req), idempotency.Done), "kept")
	f.claim(f.otherPayload(req), idempotency.Mismatch)
	req, h = f.neverClaimed()
	f.settle(h, idempotency.OutcomeReleased, "", nil)
	f.settle(h, idempotency.OutcomeReleased, "", nil)
	f.wantAttempt(f.claim(f.otherPayload(req), idempotency.Claimed), 2)
}

func extendStale(f *fixture) {
	_, first, second := f.takeOver()
	f.extend(first, idempotency.ErrStale)
	f.extend(second, nil)
	f.settle(second, idempotency.OutcomeDone, "", nil)
	f.extend(second, idempotency.ErrStale)
}

func extendLost(f *fixture) {
	req, h := f.neverClaimed()
	f.extend(h, nil)
	f.claim(f.again(req), idempotency.Running)
	f.settle(h, idempotency.OutcomeDone, "kept", nil)
	f.wantResult(f.claim(f.again(req), idempotency.Done), "kept")
}

func replaceNamed(f *fixture) {
	req := f.request()
	h := f.hold(req)
	f.settle(h, idempotency.OutcomeUnknown, "", nil)
	next := f.refusing(req)
	next.Replace = h.Token
	second := f.hold(next)
	// What was unknown is known now, so a release frees the key again.
	f.settle(second, idempotency.OutcomeReleased, "", nil)
	f.claim(f.refusing(req), idempotency.Claimed)
}

func replaceOld(f *fixture) {
	req, first, second := f.takeOver()
	late := f.refusing(req)
	late.Replace = first.Token
	f.claim(late, idempotency.Running)
	f.settle(second, idempotency.OutcomeUnknown, "", nil)
	f.claim(late, idempotency.Unknown)
}

func contextEnded(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	req := f.request()
	if _, err := f.store.Claim(ctx, req); !errors.Is(err, context.Canceled) {
		f.Fatalf("Claim: %v, want context.Canceled", err)
	}
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 1)
}

func leaseEnds(f *fixture) {
	req := f.request()
	f.hold(req)
	time.Sleep(lease - time.Millisecond)
	f.claim(f.again(req), idempotency.Running)
	time.Sleep(time.Millisecond)
	f.claim(f.otherPayload(req), idempotency.Mismatch)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 2)
}

func leaseEndsRefused(f *fixture) {
	req := f.request()
	h := f.hold(req)
	time.Sleep(lease + retention - time.Second)
	rec := f.claim(f.refusing(req), idempotency.Unknown)
	if rec.Token != h.Token {
		f.Fatal("the unknown record does not name the attempt that ended so")
	}
}

func leaseExtended(f *fixture) {
	req := f.request()
	h := f.hold(req)
	for range 5 {
		time.Sleep(lease - time.Second)
		f.claim(f.again(req), idempotency.Running)
		f.extend(h, nil)
	}
}

func lateButAlone(f *fixture) {
	req := f.request()
	h := f.hold(req)
	time.Sleep(2 * lease)
	f.settle(h, idempotency.OutcomeDone, "late", nil)
	f.wantResult(f.claim(f.again(req), idempotency.Done), "late")
}

func retentionEnds(f *fixture) {
	req := f.request()
	f.settle(f.hold(req), idempotency.OutcomeDone, "kept", nil)
	time.Sleep(retention - time.Second)
	f.claim(f.again(req), idempotency.Done)
	time.Sleep(time.Second)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 1)
}

func releasedEnds(f *fixture) {
	req := f.request()
	f.settle(f.hold(req), idempotency.OutcomeReleased, "", nil)
	time.Sleep(retention / 2)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 1)
}

func runningEnds(f *fixture) {
	req := f.request()
	f.hold(req)
	time.Sleep(lease + retention)
	f.wantAttempt(f.claim(f.refusing(req), idempotency.Claimed), 1)
}

func startedStays(f *fixture) {
	req := f.request()
	started := f.claim(req, idempotency.Claimed).Started
	if d := time.Since(started).Abs(); d > time.Millisecond {
		f.Fatalf("started is %v off the store's clock", d)
	}
	time.Sleep(2 * lease)
	rec := f.claim(f.again(req), idempotency.Claimed)
	if !rec.Started.Equal(started) {
		f.Fatalf("started %v at the second attempt, was %v", rec.Started, started)
	}
}
