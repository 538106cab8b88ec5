package redisidem_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/redisidem"
	"github.com/firstcome/firstcome/internal/testenv"
)

// guard is a line of a script that a promise rests on, and the promise: it is
// kept with the line and broken without it.
type guard struct {
	name    string
	edits   []string // a text, and what stands in its place without the guard
	promise func(*rig) error
}

func TestEveryGuardIsNeeded(t *testing.T) {
	t.Parallel()
	for _, g := range append(holderGuards, lateGuards...) {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			for _, without := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					if without {
						if err := redisidem.Mutate(r.store, g.edits...); err != nil {
							t.Fatal(err)
						}
					}
					switch err := g.promise(r); {
					case !without && err != nil:
						t.Errorf("with the guard: %v", err)
					case without && err == nil:
						t.Error("without the guard nothing is noticed")
					}
				})
			}
		})
	}
}

// rig is one key of a store in a bubble.
type rig struct {
	*testing.T
	store  *redisidem.Store
	client redis.UniversalClient
}

func newRig(t *testing.T) *rig {
	client := testenv.Bubble(t)
	return &rig{T: t, store: newStore(t, client), client: client}
}

const linger = time.Minute

// attempt is a new one, that began at the time.
func attemptAt(begun time.Time) idempotency.ClaimRequest {
	return idempotency.ClaimRequest{
		Token: idempotency.NewToken(begun), Rerun: true,
		Terms: idempotency.Terms{Lease: 30 * time.Second, Retention: time.Hour, Linger: linger},
	}
}

func attempt() idempotency.ClaimRequest { return attemptAt(time.Now()) }

func looking() idempotency.ClaimRequest {
	req := attempt()
	req.Look = true
	return req
}

// hears returns an error unless the claim is answered so.
func (r *rig) hears(req idempotency.ClaimRequest, want idempotency.Status) error {
	_, err := r.told(req, want)
	return err
}

func (r *rig) told(req idempotency.ClaimRequest, want idempotency.Status) (idempotency.Record, error) {
	rec, err := r.store.Claim(r.Context(), req)
	if err == nil && rec.Status != want {
		err = fmt.Errorf("status %d, want %d", rec.Status, want)
	}
	return rec, err
}

// runs claims and returns an error unless it is attempt n.
func (r *rig) runs(req idempotency.ClaimRequest, n int) error {
	rec, err := r.told(req, idempotency.Claimed)
	if err == nil && rec.Attempt != n {
		err = fmt.Errorf("attempt %d, want %d", rec.Attempt, n)
	}
	if err == nil && time.Since(rec.Started).Abs() > 30*time.Minute {
		err = fmt.Errorf("started %v", rec.Started)
	}
	return err
}

// ends settles; n is 0 for a withdrawal.
func (r *rig) ends(req idempotency.ClaimRequest, o idempotency.Outcome, n int) error {
	h := idempotency.Holder{ID: req.ID, Token: req.Token, Attempt: n, Started: time.Now()}
	return r.store.Settle(r.Context(), h, idempotency.Settlement{
		Outcome: o, Result: []byte("result"), Retention: time.Hour, UnknownRetention: time.Hour, Linger: linger,
	})
}

func (r *rig) releases(req idempotency.ClaimRequest, n int) error {
	return r.ends(req, idempotency.OutcomeReleased, n)
}

func (r *rig) withdraws(req idempotency.ClaimRequest) error { return r.releases(req, 0) }

func (r *rig) extends(req idempotency.ClaimRequest) error {
	return r.store.Extend(r.Context(), idempotency.Holder{ID: req.ID, Token: req.Token, Attempt: 1, Started: time.Now()}, req.Terms)
}

// stale wants the error of a step that is not the caller's any more.
func stale(err error) error {
	if errors.Is(err, idempotency.ErrStale) {
		return nil
	}
	return errors.Join(errors.New("the step is not stale"), err)
}

var holderGuards = []guard{
	{
		name:  "a claim is sent twice and given once",
		edits: []string{"if state == 'r' and token == own then", "if false then"},
		promise: func(r *rig) error {
			a := attempt()
			return errors.Join(r.runs(a, 1), r.runs(a, 1))
		},
	},
	{
		name:  "a running claim keeps others out",
		edits: []string{"if state == 'r' and now < tonumber(sub(raw, 21, 33)) then return 2 end", ""},
		promise: func(r *rig) error {
			return errors.Join(r.runs(attempt(), 1), r.hears(attempt(), idempotency.Running))
		},
	},
	{
		name:  "a step by another token changes nothing",
		edits: []string{"    return 0\n  end\n  if to == 'x' then", "  end\n  if to == 'x' then"},
		promise: func(r *rig) error {
			a := attempt()
			return errors.Join(r.runs(a, 1), stale(r.ends(attempt(), idempotency.OutcomeDone, 1)), r.extends(a))
		},
	},
	{
		name:  "a release after an unknown attempt leaves it unknown",
		edits: []string{"then to, ttl = 'u', other end", "then ttl = other end"},
		promise: func(r *rig) error {
			a, b, refusing := attempt(), attempt(), attempt()
			refusing.Rerun = false
			return errors.Join(r.runs(a, 1), r.ends(a, idempotency.OutcomeUnknown, 1), r.runs(b, 2), r.releases(b, 2),
				r.hears(refusing, idempotency.Unknown))
		},
	},
	{
		name:  "a record whose ended tokens can't be read is refused",
		edits: []string{"if #raw > 65 and find(raw, '^[rfu]', 2)", "if false"},
		promise: func(r *rig) error {
			a := attempt()
			err := r.runs(a, 1)
			r.client.Append(r.Context(), r.store.KeyOf(a.ID), "not a horizon and some tokens")
			if _, got := r.store.Claim(r.Context(), attempt()); !errors.Is(got, idempotency.ErrCorrupt) {
				err = errors.Join(err, fmt.Errorf("got %w", got))
			}
			return err
		},
	},
}

// afterRelease releases a claim, and lets others come and go before its copy
// lands.
func (r *rig) afterRelease(others int) error {
	a := attempt()
	err := errors.Join(r.runs(a, 1), r.releases(a, 1))
	for i := range others {
		b := attempt()
		err = errors.Join(err, r.runs(b, 2+i), r.releases(b, 2+i))
	}
	return errors.Join(err, r.hears(a, idempotency.Ended), r.runs(attempt(), 2+others))
}

var lateGuards = []guard{
	{
		name:    "a claim that was released is not taken anew",
		edits:   []string{"local over = token == own or", "local over ="},
		promise: func(r *rig) error { return r.afterRelease(0) },
	},
	{
		name:    "nor after another attempt",
		edits:   []string{"#ended > 19 and find(ended, own, 20, true)", "false"},
		promise: func(r *rig) error { return r.afterRelease(1) },
	},
	{
		name:    "an attempt that takes over remembers the one before",
		edits:   []string{"with(ended, token, sub(mode, 3, 15)), 'PX'", "ended, 'PX'"},
		promise: func(r *rig) error { return r.afterRelease(1) },
	},
	{
		name:    "an attempt that takes over remembers those before that",
		edits:   []string{"with(ended, token, sub(mode, 3, 15)), 'PX'", "with('', token, sub(mode, 3, 15)), 'PX'"},
		promise: func(r *rig) error { return r.afterRelease(3) },
	},
	{
		name:    "a release keeps what is remembered",
		edits:   []string{"and sub(raw, 66) or result", "and '' or result"},
		promise: func(r *rig) error { return r.afterRelease(2) },
	},
	{
		name:  "a heartbeat keeps what is remembered",
		edits: []string{"lease_end(other) .. sub(raw, 34), 'PX'", "lease_end(other) .. sub(raw, 34, 65), 'PX'"},
		promise: func(r *rig) error {
			a, b := attempt(), attempt()
			return errors.Join(r.runs(a, 1), r.releases(a, 1), r.runs(b, 2), r.extends(b), r.releases(b, 2), r.hears(a, idempotency.Ended))
		},
	},
	{
		name:  "a claim whose token has ended is answered",
		edits: []string{"if over then return {8, attempt, started, 0, ''} end", ""},
		promise: func(r *rig) error {
			a := attempt()
			return errors.Join(r.runs(a, 1), r.ends(a, idempotency.OutcomeUnknown, 1), r.hears(a, idempotency.Ended))
		},
	},
	{
		name:  "a withdrawal that finds nothing leaves its token",
		edits: []string{"      redis.call('SET', key, '1fn' .. sub(what, 2, 18) .. now_text .. who, 'PX', ttl)\n", ""},
		promise: func(r *rig) error {
			a := attempt()
			return errors.Join(r.withdraws(a), r.hears(a, idempotency.Ended), r.runs(attempt(), 1))
		},
	},
	{
		name:  "a withdrawal that finds another attempt leaves its token",
		edits: []string{"      note(key, raw, own, sub(what, 19))\n", ""},
		promise: func(r *rig) error {
			a, b := attempt(), attempt()
			return errors.Join(r.runs(b, 1), stale(r.withdraws(a)), r.releases(b, 1), r.hears(a, idempotency.Ended))
		},
	},
	{
		name:  "a withdrawn attempt is not counted",
		edits: []string{"if state == 'r' and sub(what, 2, 5) == '0000' then attempt =", "if false then attempt ="},
		promise: func(r *rig) error {
			a := attempt()
			return errors.Join(r.runs(a, 1), r.withdraws(a), r.runs(attempt(), 1))
		},
	},
	{
		name:  "a withdrawal sent twice uncounts one attempt",
		edits: []string{"if state == 'r' and sub(what, 2, 5) == '0000'", "if sub(what, 2, 5) == '0000'"},
		promise: func(r *rig) error {
			a, b := attempt(), attempt()
			return errors.Join(r.runs(a, 1), r.ends(a, idempotency.OutcomeUnknown, 1), r.runs(b, 2), r.withdraws(b), r.withdraws(b),
				r.runs(attempt(), 2))
		},
	},
	{
		name:  "attempt 1 starts when it claims, whatever was withdrawn before",
		edits: []string{"if attempt == 0 then first, started = now_text, now end", ""},
		promise: func(r *rig) error {
			a := attempt()
			err := r.runs(a, 1)
			time.Sleep(50 * time.Minute)
			return errors.Join(err, r.withdraws(a), r.runs(attempt(), 1))
		},
	},
	{
		name:  "a key whose attempts were withdrawn was never seen",
		edits: []string{"if look and state == 'f' and attempt == 0 then return {7, 0, now, 0, ''} end", ""},
		promise: func(r *rig) error {
			a := attempt()
			return errors.Join(r.withdraws(a), r.hears(looking(), idempotency.Absent))
		},
	},
	{
		name:  "a look takes nothing",
		edits: []string{"if look then return {9, attempt, started, 0, ''} end", ""},
		promise: func(r *rig) error {
			a := attempt()
			return errors.Join(r.runs(a, 1), r.releases(a, 1), r.hears(looking(), idempotency.Seen))
		},
	},
	{
		name:  "a claim that was refused takes nothing later",
		edits: []string{"if not over and not look then note(key, raw, own, sub(mode, 3, 15)) end", ""},
		promise: func(r *rig) error {
			a, b := attempt(), attempt()
			return errors.Join(r.runs(a, 1), r.hears(b, idempotency.Running), r.releases(a, 1), r.hears(b, idempotency.Ended))
		},
	},
	{
		name:  "copies of one claim need one place",
		edits: []string{"if not over and not look then note", "if not look then note"},
		promise: func(r *rig) error {
			return r.onePlace(func(b idempotency.ClaimRequest) error { return r.hears(b, idempotency.Running) })
		},
	},
	{
		name:  "and so do copies of a withdrawal",
		edits: []string{" and not (#raw > 84 and find(raw, own, 85, true)) then", " then"},
		promise: func(r *rig) error {
			return r.onePlace(func(b idempotency.ClaimRequest) error { return stale(r.withdraws(b)) })
		},
	},
	{
		name:  "looks need no place",
		edits: []string{"if not over and not look then note", "if not over then note"},
		promise: func(r *rig) error {
			return r.onePlace(func(idempotency.ClaimRequest) error { return r.hears(looking(), idempotency.Running) })
		},
	},
	{
		name:    "a claim there was no room for takes nothing",
		edits:   []string{"if holds > 0 and begun(own) <= begun(ended) then", "if false then"},
		promise: (*rig).beyondRoom,
	},
	{
		name:    "the horizon is the latest beginning",
		edits:   []string{"if begun(horizon) < begun(ended) then horizon = sub(ended, 1, 6) end", ""},
		promise: (*rig).beyondRoom,
	},
	{
		name:  "the horizon moves where a refused claim finds no room",
		edits: []string{"redis.call('SETRANGE', key, 65, with(sub(raw, 66), token, linger))", "redis.call('SETRANGE', key, 65, sub(raw, 66))"},
		promise: func(r *rig) error {
			a, last := attempt(), attempt()
			err := r.runs(a, 1)
			for range 16 {
				err = errors.Join(err, r.hears(attempt(), idempotency.Running))
			}
			return errors.Join(err, r.hears(last, idempotency.Running), r.releases(a, 1), r.hears(last, idempotency.Ended))
		},
	},
	{
		name:  "the horizon ends",
		edits: []string{"if holds > 0 and begun(own)", "if ended ~= '' and begun(own)"},
		promise: func(r *rig) error {
			err := r.churn(20, time.Now().Add(24*time.Hour))
			if rec, e := r.told(attempt(), idempotency.Running); e != nil || rec.Lease <= 0 || rec.Lease > linger {
				err = errors.Join(err, fmt.Errorf("to be asked again after %v: %w", rec.Lease, e))
			}
			time.Sleep(linger)
			return errors.Join(err, r.runs(attempt(), 21))
		},
	},
}

// onePlace fills all places but one, and wants what is done twenty times to
// push out nobody.
func (r *rig) onePlace(step func(idempotency.ClaimRequest) error) error {
	first, b := attempt(), attempt()
	err := errors.Join(r.runs(first, 1), r.releases(first, 1), r.churn(14, time.Now()))
	holder := attempt()
	err = errors.Join(err, r.runs(holder, 16))
	for range 20 {
		err = errors.Join(err, step(b))
	}
	return errors.Join(err, r.releases(holder, 16), r.hears(first, idempotency.Ended))
}

// churn lets n attempts run and release, which begin one ms after the other.
func (r *rig) churn(n int, begun time.Time) error {
	var errs []error
	for i := range n {
		a := attemptAt(begun.Add(time.Duration(i) * time.Millisecond))
		rec, err := r.told(a, idempotency.Claimed)
		errs = append(errs, err, r.releases(a, rec.Attempt))
	}
	return errors.Join(errs...)
}

// beyondRoom has more attempts than there is room for, the first of a process
// whose clock is ahead, and wants none of them to take the key.
func (r *rig) beyondRoom() error {
	ahead := attemptAt(time.Now().Add(time.Second))
	err := errors.Join(r.runs(ahead, 1), r.releases(ahead, 1))
	behind := attempt()
	err = errors.Join(err, r.runs(behind, 2), r.releases(behind, 2), r.churn(17, time.Now().Add(2*time.Second)))
	return errors.Join(err, r.hears(ahead, idempotency.Running), r.hears(behind, idempotency.Running),
		r.runs(attemptAt(time.Now().Add(time.Minute)), 20))
}
