package idemtest

import (
	"time"

	"github.com/firstcome/firstcome/idempotency"
)

// lateCases are about claims that land after their attempt is over. Sent twice,
// a claim may do so; given up, it may for the first time.
var lateCases = []testCase{
	{"Late_ClaimWithdrawnBeforeItLandsTakesNothing", withdrawnFirst},
	{"Late_ClaimWithdrawnAfterItLandedTakesNothing", withdrawnAfter},
	{"Late_WithdrawnAttemptIsNotCountedHoweverItCameAbout", withdrawnUncounted},
	{"Late_WithdrawnAttemptLeavesAnEarlierOneUnknown", withdrawnAfterUnknown},
	{"Late_ClaimWithdrawnWhileAnotherAttemptRunsTakesNothingAfterIt", withdrawnBesides},
	{"Late_CopyAfterItsReleaseTakesNothing", lateReleased},
	{"Late_CopyTakesNothingAfterAnyNumberOfOtherAttempts", lateAmongOthers},
	{"Late_CopyAfterItsAttemptEndedUnknownIsNoRerun", lateUnknown},
	{"Late_CopyOfARefusedClaimTakesNothing", lateRefused},
	{"Late_CopyDisturbsNoHolderAndNoResult", lateDisturbs},
	{"Late_StepsOfAnEndedAttemptAreStale", lateSteps},
	{"Late_CopiesOfMoreAttemptsThanAreRememberedTakeNothing", lateCrowd},
}

var lateTimedCases = []testCase{
	{"Late_WithdrawalIsRememberedForItsRetention", withdrawnKept},
	{"Late_ClaimIsRememberedForLingerThoughTheRecordEndsBefore", outlivesRecord},
	{"Late_ProcessWhoseClockIsBehindIsKeptOutForLingerAtMost", behind},
}

// withdraw ends an attempt whose claim was never answered.
func (f *fixture) withdraw(req idempotency.ClaimRequest, want error) {
	f.Helper()
	f.settle(holder(req, idempotency.Record{}), idempotency.OutcomeReleased, "", want)
}

// release ends an attempt that has run.
func (f *fixture) release(h idempotency.Holder) {
	f.Helper()
	f.settle(h, idempotency.OutcomeReleased, "", nil)
}

func withdrawnFirst(f *fixture) {
	req := f.request()
	f.withdraw(req, nil)
	f.withdraw(req, nil)
	f.claim(req, idempotency.Ended)
	f.claim(req, idempotency.Ended)
	next := f.again(req)
	f.wantAttempt(f.claim(next, idempotency.Claimed), 1)
	f.claim(req, idempotency.Running)
	f.wantAttempt(f.claim(next, idempotency.Claimed), 1)
}

func withdrawnAfter(f *fixture) {
	req := f.request()
	f.hold(req)
	f.withdraw(req, nil)
	f.withdraw(req, nil)
	f.claim(req, idempotency.Ended)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 1)
}

func withdrawnUncounted(f *fixture) {
	for _, landed := range []bool{false, true} {
		req := f.request()
		if landed {
			f.hold(req)
		}
		f.withdraw(req, nil)
		look := f.again(req)
		look.Look = true
		f.claim(look, idempotency.Absent)
		// A key that nobody used takes another payload too.
		first := f.claim(f.otherPayload(req), idempotency.Claimed)
		f.wantAttempt(first, 1)
		if d := time.Since(first.Started).Abs(); d > time.Minute {
			f.Fatalf("attempt 1 started %v ago", d)
		}
	}
	req := f.request()
	f.release(f.hold(req))
	lost := f.again(req)
	f.hold(lost)
	f.withdraw(lost, nil)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 2)
}

func withdrawnAfterUnknown(f *fixture) {
	req := f.request()
	f.settle(f.hold(req), idempotency.OutcomeUnknown, "", nil)
	lost := f.again(req)
	f.hold(lost)
	f.withdraw(lost, nil)
	f.withdraw(lost, nil)
	f.wantAttempt(f.claim(f.refusing(req), idempotency.Unknown), 1)
	f.claim(lost, idempotency.Ended)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 2)
}

func withdrawnBesides(f *fixture) {
	req := f.request()
	h := f.hold(req)
	late := f.again(req)
	f.withdraw(late, idempotency.ErrStale)
	f.extend(h, nil)
	f.claim(f.again(req), idempotency.Running)
	f.release(h)
	f.claim(late, idempotency.Ended)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 2)
}

func lateReleased(f *fixture) {
	req := f.request()
	f.release(f.hold(req))
	f.claim(req, idempotency.Ended)
	look := f.again(req)
	look.Look = true
	f.claim(look, idempotency.Seen) // still free, and a retry is no first attempt
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 2)
}

func lateAmongOthers(f *fixture) {
	req := f.request()
	all := []idempotency.ClaimRequest{req}
	for i := range 10 {
		rec := f.claim(req, idempotency.Claimed)
		f.wantAttempt(rec, i+1)
		f.release(holder(req, rec))
		for _, late := range all {
			f.claim(late, idempotency.Ended)
		}
		req = f.again(req)
		all = append(all, req)
	}
	f.wantAttempt(f.claim(req, idempotency.Claimed), 11)
	for _, late := range all[:10] {
		f.claim(late, idempotency.Running)
	}
}

func lateUnknown(f *fixture) {
	req := f.request()
	f.settle(f.hold(req), idempotency.OutcomeUnknown, "", nil)
	f.claim(req, idempotency.Ended)
	second := f.again(req)
	h := f.hold(second)
	f.claim(req, idempotency.Running)
	f.release(h) // goes back to unknown
	f.claim(req, idempotency.Ended)
	f.claim(second, idempotency.Ended)
	f.wantAttempt(f.claim(f.refusing(req), idempotency.Unknown), 2)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 3)
}

func lateRefused(f *fixture) {
	req := f.request()
	h := f.hold(req)
	running, other := f.again(req), f.otherPayload(req)
	f.claim(running, idempotency.Running)
	f.claim(other, idempotency.Mismatch)
	f.settle(h, idempotency.OutcomeUnknown, "", nil)
	unknown := f.refusing(req)
	f.claim(unknown, idempotency.Unknown)
	f.claim(running, idempotency.Ended)
	second := f.refusing(req)
	second.Replace = h.Token
	f.release(f.hold(second))
	for _, late := range []idempotency.ClaimRequest{running, other, unknown} {
		f.claim(late, idempotency.Ended)
	}
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 3)
}

func lateDisturbs(f *fixture) {
	req := f.request()
	f.release(f.hold(req))
	second := f.again(req)
	h := f.hold(second)
	f.claim(req, idempotency.Running)
	f.withdraw(req, idempotency.ErrStale)
	f.extend(h, nil)
	f.claim(req, idempotency.Running)
	f.settle(h, idempotency.OutcomeDone, "two", nil)
	f.wantResult(f.claim(req, idempotency.Done), "two")
	f.withdraw(req, idempotency.ErrStale)
	f.wantResult(f.claim(f.again(req), idempotency.Done), "two")
}

func lateSteps(f *fixture) {
	req := f.request()
	h := f.hold(req)
	f.release(h)
	for range 2 { // with nobody after it, and while another runs
		f.extend(h, idempotency.ErrStale)
		for _, o := range []idempotency.Outcome{idempotency.OutcomeDone, idempotency.OutcomeNotKept, idempotency.OutcomeUnknown} {
			f.settle(h, o, "late", idempotency.ErrStale)
		}
		f.claim(f.again(req), map[bool]idempotency.Status{true: idempotency.Claimed, false: idempotency.Running}[h.Attempt == 1])
		h.Attempt++
	}
}

// lateCrowd has more attempts than a store need remember, some of them of a
// process whose clock is a little behind.
func lateCrowd(f *fixture) {
	req := f.request()
	begun := time.Now()
	var all []idempotency.ClaimRequest
	for i := range 40 {
		at := begun.Add(time.Duration(i-i%3) * time.Millisecond)
		req = f.begun(req, at)
		h := f.hold(req)
		refused := f.begun(req, at)
		if i%4 == 0 {
			f.claim(refused, idempotency.Running)
			all = append(all, refused)
		}
		f.release(h)
		all = append(all, req)
		for _, late := range all {
			rec, err := f.store.Claim(f.Context(), late)
			if err != nil || rec.Status != idempotency.Ended && rec.Status != idempotency.Running {
				f.Fatalf("after attempt %d: status %d, %v", i+1, rec.Status, err)
			}
			if rec.Status == idempotency.Running && (rec.Lease <= 0 || rec.Lease > linger) {
				f.Fatalf("to be asked again after %v", rec.Lease)
			}
		}
	}
	f.wantAttempt(f.claim(f.begun(req, begun.Add(time.Second)), idempotency.Claimed), 41)
}

func withdrawnKept(f *fixture) {
	req := f.request()
	f.withdraw(req, nil)
	time.Sleep(retention/2 - time.Second)
	f.claim(req, idempotency.Ended)
	time.Sleep(time.Second)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 1)
}

func outlivesRecord(f *fixture) {
	req := f.request()
	f.release(f.hold(req))
	time.Sleep(retention/2 - time.Second)
	late := f.again(req)
	f.withdraw(late, idempotency.ErrStale)
	time.Sleep(linger - time.Second)
	f.claim(late, idempotency.Ended)

	req = f.request()
	f.settle(f.hold(req), idempotency.OutcomeUnknown, "", nil)
	time.Sleep(retention - time.Second)
	refused := f.refusing(req)
	f.claim(refused, idempotency.Unknown)
	time.Sleep(linger - time.Second)
	refused.Rerun = true
	f.claim(refused, idempotency.Ended)
}

func behind(f *fixture) {
	req := f.request()
	for i := range 40 {
		ahead := time.Now().Add(time.Hour + time.Duration(i)*time.Millisecond)
		f.release(f.hold(f.begun(req, ahead)))
	}
	time.Sleep(linger)
	f.wantAttempt(f.claim(f.again(req), idempotency.Claimed), 41)
}
