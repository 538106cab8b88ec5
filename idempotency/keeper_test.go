package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
)

var hashKey = []byte("a test key of thirty-two bytes..")

func newKeeper(t *testing.T, store idempotency.Store, policy idempotency.Policy) *idempotency.Keeper {
	t.Helper()
	k, err := idempotency.New(store, hashKey, policy, &idempotency.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

type work = func(context.Context, *idempotency.Claim) ([]byte, error)

func answer(text string) work {
	return func(context.Context, *idempotency.Claim) ([]byte, error) { return []byte(text), nil }
}

func mustNotRun(t *testing.T) work {
	return func(context.Context, *idempotency.Claim) ([]byte, error) {
		t.Error("it ran")
		return nil, nil
	}
}

func wantResult(t *testing.T, got idempotency.Result, err error, want string, replayed bool) {
	t.Helper()
	if err != nil || string(got.Bytes) != want || got.Replayed != replayed {
		t.Fatalf("%q, replayed %v, %v; want %q, %v", got.Bytes, got.Replayed, err, want, replayed)
	}
}

func TestNew_MistakesShowAtStartUp(t *testing.T) {
	store := idemtest.NewMemory(nil)
	good := idempotency.Rerun
	for name, build := range map[string]func() (*idempotency.Keeper, error){
		"no store":       func() (*idempotency.Keeper, error) { return idempotency.New(nil, hashKey, good, nil) },
		"no hash key":    func() (*idempotency.Keeper, error) { return idempotency.New(store, nil, good, nil) },
		"short hash key": func() (*idempotency.Keeper, error) { return idempotency.New(store, hashKey[:31], good, nil) },
		"no policy":      func() (*idempotency.Keeper, error) { return idempotency.New(store, hashKey, idempotency.Policy{}, nil) },
		"no function": func() (*idempotency.Keeper, error) {
			return idempotency.New(store, hashKey, idempotency.Refuse(nil), nil)
		},
		"short lease":      withOptions(store, idempotency.Options{Lease: time.Millisecond}),
		"negative lease":   withOptions(store, idempotency.Options{Lease: -1}),
		"short retention":  withOptions(store, idempotency.Options{Retention: time.Second}),
		"long retention":   withOptions(store, idempotency.Options{Retention: 1<<63 - 1}),
		"released longer":  withOptions(store, idempotency.Options{ReleasedRetention: 48 * time.Hour}),
		"negative result":  withOptions(store, idempotency.Options{MaxResult: -1}),
		"negative timeout": withOptions(store, idempotency.Options{StoreTimeout: -1}),
		"short linger":     withOptions(store, idempotency.Options{Linger: time.Second}),
		"negative linger":  withOptions(store, idempotency.Options{Linger: -1}),
	} {
		if k, err := build(); k != nil || !errors.Is(err, idempotency.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func withOptions(store idempotency.Store, o idempotency.Options) func() (*idempotency.Keeper, error) {
	return func() (*idempotency.Keeper, error) { return idempotency.New(store, hashKey, idempotency.Rerun, &o) }
}

func TestDo_RunsOnceAndReplays(t *testing.T) {
	k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Rerun)
	r, err := k.Do(t.Context(), "s", "k", []byte("p"), answer("one"))
	wantResult(t, r, err, "one", false)
	r, err = k.Do(t.Context(), "s", "k", []byte("p"), mustNotRun(t))
	wantResult(t, r, err, "one", true)
	if _, err = k.Do(t.Context(), "s", "k", []byte("q"), mustNotRun(t)); !errors.Is(err, idempotency.ErrMismatch) {
		t.Fatal(err)
	}
}

func TestDo_ErrorsReleaseOrLeaveUnknown(t *testing.T) {
	refuse := idempotency.Refuse(func(context.Context, *idempotency.Claim) (idempotency.Verdict, error) {
		return idempotency.StillUnknown(), nil
	})
	cause := errors.New("declined")
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"a refusal":    {idempotency.NothingHappened(cause), nil},
		"a wrapped":    {fmt.Errorf("pay: %w", idempotency.NothingHappened(cause)), nil},
		"any other":    {cause, idempotency.ErrUnknown},
		"context done": {context.Canceled, idempotency.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, idemtest.NewMemory(nil), refuse)
			_, err := k.Do(t.Context(), "s", "k", nil, func(context.Context, *idempotency.Claim) ([]byte, error) { return nil, c.err })
			if !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			if _, err = k.Do(t.Context(), "s", "k", nil, answer("again")); !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestDo_PanicAndGoexitLeaveUnknownAndGoOn(t *testing.T) {
	k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Rerun)
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic did not go on")
			}
		}()
		_, _ = k.Do(t.Context(), "s", "k", nil, func(context.Context, *idempotency.Claim) ([]byte, error) { panic("boom") })
	}()
	r, err := k.Do(t.Context(), "s", "k", nil, answer("rerun"))
	wantResult(t, r, err, "rerun", false)
}

func TestDo_ResultAboveTheCapIsReturnedOnceAndNotKept(t *testing.T) {
	k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Rerun)
	large := strings.Repeat("x", k.MaxResult()+1)
	r, err := k.Do(t.Context(), "s", "k", nil, answer(large))
	wantResult(t, r, err, large, false)
	if _, err = k.Do(t.Context(), "s", "k", nil, mustNotRun(t)); !errors.Is(err, idempotency.ErrNotKept) {
		t.Fatal(err)
	}
}

func TestBegin_EmptyOrHugeScopeAndKeyAreRefused(t *testing.T) {
	k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Rerun)
	for _, c := range [][2]string{{"", "k"}, {"s", ""}, {strings.Repeat("s", 4097), "k"}, {"s", strings.Repeat("k", 1025)}} {
		if _, err := k.Begin(t.Context(), c[0], c[1], idempotency.Fingerprint{}); !errors.Is(err, idempotency.ErrInvalid) {
			t.Errorf("%v", err)
		}
	}
}

func TestID_IsKeyedAndInjective(t *testing.T) {
	k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Rerun)
	other, _ := idempotency.New(idemtest.NewMemory(nil), bytes.Repeat([]byte("o"), 32), idempotency.Rerun, nil)
	seen := map[idempotency.ClaimID]string{}
	parts := []string{"", "a", "b", "ab", "a\x00", "\x01", "a:b", "{a}", "\n", strings.Repeat("a", 1<<20)}
	for _, scope := range parts {
		for _, key := range parts {
			id := k.ID(scope, key)
			if was, ok := seen[id]; ok {
				t.Fatalf("%.20q and %.20q share an ID", was, scope+"|"+key)
			}
			seen[id] = scope + "|" + key
			if other.ID(scope, key) == id {
				t.Fatal("another hash key gives the same ID")
			}
			if k.Fingerprint([]byte(key), scope) == idempotency.Fingerprint(id) {
				t.Fatal("a fingerprint is an ID")
			}
		}
	}
	first, second := k.ID("a", "b"), k.ID("a", "b")
	if first != second {
		t.Fatal("an ID changes")
	}
	if k.Fingerprint([]byte("b"), "a") == k.Fingerprint(nil, "a", "b") {
		t.Fatal("payload and words run together")
	}
}

// crash claims and never says a word again.
func crash(t *testing.T, k *idempotency.Keeper) *idempotency.Claim {
	t.Helper()
	a, err := k.Begin(t.Context(), "s", "k", k.Fingerprint(nil))
	if err != nil || a.Claim == nil {
		t.Fatal(err)
	}
	return a.Claim
}

func TestCrash_UnderRerunTheNextAttemptRunsWhenTheLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Rerun)
		dead := crash(t, k)
		time.Sleep(29 * time.Second)
		var inFlight *idempotency.InFlightError
		if _, err := k.Do(t.Context(), "s", "k", nil, mustNotRun(t)); !errors.As(err, &inFlight) || inFlight.Lease != time.Second {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r, err := k.Do(t.Context(), "s", "k", nil, func(_ context.Context, c *idempotency.Claim) ([]byte, error) {
			if c.First() || c.Attempt() != 2 || !c.Started().Equal(dead.Started()) || c.ID() != dead.ID() {
				t.Errorf("attempt %d, started %v", c.Attempt(), c.Started())
			}
			return []byte("second"), nil
		})
		wantResult(t, r, err, "second", false)
		// The first one was frozen, not dead: it wakes up late.
		if err := dead.Complete(t.Context(), []byte("first")); !errors.Is(err, idempotency.ErrStale) {
			t.Fatal(err)
		}
		r, err = k.Do(t.Context(), "s", "k", nil, mustNotRun(t))
		wantResult(t, r, err, "second", true)
	})
}

func TestCrash_UnderRefuseTheVerdictDecides(t *testing.T) {
	failure := errors.New("ledger is down")
	for name, c := range map[string]struct {
		verdict idempotency.Verdict
		err     error
		want    string
		wantErr error
	}{
		"still unknown":       {idempotency.StillUnknown(), nil, "", idempotency.ErrUnknown},
		"zero":                {idempotency.Verdict{}, nil, "", idempotency.ErrUnknown},
		"error":               {idempotency.DidNotHappen(), failure, "", failure},
		"happened":            {idempotency.Happened([]byte("paid")), nil, "paid", nil},
		"happened, no answer": {idempotency.Happened(nil), nil, "", idempotency.ErrNotKept},
		"did not happen":      {idempotency.DidNotHappen(), nil, "ran", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Refuse(
					func(_ context.Context, claim *idempotency.Claim) (idempotency.Verdict, error) {
						asked++
						if claim.Attempt() != 1 {
							t.Errorf("asked for attempt %d", claim.Attempt())
						}
						return c.verdict, c.err
					}))
				crash(t, k)
				if _, err := k.Do(t.Context(), "s", "k", nil, mustNotRun(t)); !errors.Is(err, idempotency.ErrInFlight) || asked != 0 {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				r, err := k.Do(t.Context(), "s", "k", nil, answer("ran"))
				if string(r.Bytes) != c.want || !errors.Is(err, c.wantErr) || asked != 1 {
					t.Fatalf("%q, %v, asked %d times", r.Bytes, err, asked)
				}
				if c.err != nil && !errors.Is(err, idempotency.ErrUnknown) {
					t.Fatal("the error of the function hides ErrUnknown")
				}
				if c.want != "" {
					r, err = k.Do(t.Context(), "s", "k", nil, mustNotRun(t))
					wantResult(t, r, err, c.want, true)
				}
			})
		})
	}
}

func TestReconcile_VerdictOnAnAttemptThatWasReplacedMeanwhileRunsNothing(t *testing.T) {
	store := idemtest.NewMemory(nil)
	var k *idempotency.Keeper
	asked := 0
	k = newKeeper(t, store, idempotency.Refuse(func(ctx context.Context, _ *idempotency.Claim) (idempotency.Verdict, error) {
		if asked++; asked == 1 {
			// While this one looks, another attempt hears "no", runs, and ends unknown.
			_, _ = k.Do(ctx, "s", "k", nil, func(context.Context, *idempotency.Claim) ([]byte, error) { return nil, errors.New("lost") })
		}
		return idempotency.DidNotHappen(), nil
	}))
	_ = crash(t, k).Abandon(t.Context())
	if _, err := k.Do(t.Context(), "s", "k", nil, mustNotRun(t)); !errors.Is(err, idempotency.ErrUnknown) {
		t.Fatal(err)
	}
}

func TestHold_ContextEndsWhenAnotherAttemptTookOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &deaf{Store: idemtest.NewMemory(nil)}
		k := newKeeper(t, store, idempotency.Rerun)
		first := crash(t, k)
		ctx := first.Hold(t.Context())
		if c, ok := idempotency.FromContext(ctx); !ok || c != first {
			t.Fatal("the context does not carry the claim")
		}
		store.deaf.Store(true) // cut off: no heartbeat arrives
		time.Sleep(time.Minute)
		synctest.Wait()
		if ctx.Err() != nil {
			t.Fatal("a store that can't be reached ended the context")
		}
		crash(t, k)
		store.deaf.Store(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !errors.Is(context.Cause(ctx), idempotency.ErrStale) {
			t.Fatalf("cause %v", context.Cause(ctx))
		}
	})
}

// deaf is a store that heartbeats don't reach.
type deaf struct {
	idempotency.Store
	deaf atomic.Bool
}

func (d *deaf) Extend(ctx context.Context, h idempotency.Holder, t idempotency.Terms) error {
	if d.deaf.Load() {
		return errors.New("no route")
	}
	return d.Store.Extend(ctx, h, t)
}

func TestClaim_IsSettledOnce(t *testing.T) {
	k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Rerun)
	c := crash(t, k)
	if err := c.Complete(t.Context(), []byte("one")); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func(context.Context) error{c.Release, c.Abandon, c.CompleteNotKept} {
		if err := end(t.Context()); !errors.Is(err, idempotency.ErrStale) {
			t.Fatal(err)
		}
	}
	r, err := k.Do(t.Context(), "s", "k", nil, mustNotRun(t))
	wantResult(t, r, err, "one", true)
}

// lostReply is a store that claims and loses its answer.
type lostReply struct {
	*idemtest.Memory
	lose atomic.Bool
	sent atomic.Bool
}

func (l *lostReply) Claim(ctx context.Context, req idempotency.ClaimRequest) (idempotency.Record, error) {
	if !l.lose.Load() {
		return l.Memory.Claim(ctx, req)
	}
	if !l.sent.Load() {
		return idempotency.Record{}, fmt.Errorf("%w: queue is full", idempotency.ErrNotSent)
	}
	_, _ = l.Memory.Claim(ctx, req)
	return idempotency.Record{}, errors.New("connection reset")
}

func TestBegin_LostClaimIsTakenBackSoThatTheRetryRunsAsTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &lostReply{Memory: idemtest.NewMemory(nil)}
		k := newKeeper(t, store, idempotency.Rerun)
		store.lose.Store(true)
		store.sent.Store(true)
		if _, err := k.Do(t.Context(), "s", "k", nil, mustNotRun(t)); !errors.Is(err, idempotency.ErrUnavailable) {
			t.Fatal(err)
		}
		synctest.Wait()
		store.lose.Store(false)
		r, err := k.Do(t.Context(), "s", "k", nil, func(_ context.Context, c *idempotency.Claim) ([]byte, error) {
			if !c.First() {
				t.Error("an attempt that never ran is counted")
			}
			return []byte("ran"), nil
		})
		wantResult(t, r, err, "ran", false)
	})
}

// slow is a store that claims travel to for longer than their callers wait.
type slow struct {
	*idemtest.Memory
	delay   time.Duration // of a claim
	deaf    time.Duration // settlements fail until then
	begun   time.Time
	settles atomic.Int32
}

func (s *slow) Claim(ctx context.Context, req idempotency.ClaimRequest) (idempotency.Record, error) {
	if s.delay == 0 {
		return s.Memory.Claim(ctx, req)
	}
	time.AfterFunc(s.delay, func() { _, _ = s.Memory.Claim(context.WithoutCancel(ctx), req) })
	<-ctx.Done()
	return idempotency.Record{}, ctx.Err()
}

func (s *slow) Settle(ctx context.Context, h idempotency.Holder, e idempotency.Settlement) error {
	s.settles.Add(1)
	if time.Since(s.begun) < s.deaf {
		return errors.New("no route")
	}
	return s.Memory.Settle(ctx, h, e)
}

func TestBegin_ClaimThatLandsAfterItsWithdrawalHoldsNothing(t *testing.T) {
	for name, next := range map[string]time.Duration{
		"and the retry comes before it": 3 * time.Second, "and the retry comes after it": 2 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slow{Memory: idemtest.NewMemory(nil), delay: time.Minute, begun: time.Now()}
				k := newKeeper(t, store, idempotency.Rerun)
				if _, err := k.Do(t.Context(), "s", "k", nil, mustNotRun(t)); !errors.Is(err, idempotency.ErrUnavailable) {
					t.Fatal(err)
				}
				store.delay = 0
				time.Sleep(next)
				r, err := k.Do(t.Context(), "s", "k", nil, func(_ context.Context, c *idempotency.Claim) ([]byte, error) {
					if time.Sleep(2 * time.Minute); !c.First() { // meanwhile it lands
						t.Error("an attempt that never ran is counted")
					}
					return []byte("ran"), nil
				})
				wantResult(t, r, err, "ran", false)
				if store.settles.Load() != 2 {
					t.Errorf("%d settlements, want a withdrawal and a completion", store.settles.Load())
				}
			})
		})
	}
}

func TestBegin_WithdrawalThatFailsIsTriedOnceMoreAndGoneWithinABound(t *testing.T) {
	for name, c := range map[string]struct{ deaf, delay time.Duration }{
		"the store is back":        {deaf: 2500 * time.Millisecond, delay: time.Minute},
		"the store stays away":     {deaf: time.Hour, delay: time.Minute},
		"and the claim has landed": {deaf: 2500 * time.Millisecond, delay: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
				store := &slow{Memory: idemtest.NewMemory(nil), delay: c.delay, deaf: c.deaf, begun: time.Now()}
				k := newKeeper(t, store, idempotency.Rerun)
				if _, err := k.Do(t.Context(), "s", "k", nil, mustNotRun(t)); !errors.Is(err, idempotency.ErrUnavailable) {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if n := store.settles.Load(); n != 2 {
					t.Fatalf("%d tries to withdraw, want 2", n)
				}
				if store.delay = 0; c.deaf < time.Hour {
					r, err := k.Do(t.Context(), "s", "k", nil, answer("ran"))
					wantResult(t, r, err, "ran", false)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// refusedTwice is a store whose client sends the next claim twice, and the key
// becomes free in between.
type refusedTwice struct {
	*idemtest.Memory
	between func()
}

func (r *refusedTwice) Claim(ctx context.Context, req idempotency.ClaimRequest) (idempotency.Record, error) {
	if r.between != nil {
		_, _ = r.Memory.Claim(ctx, req)
		r.between()
		r.between = nil
	}
	return r.Memory.Claim(ctx, req)
}

func TestBegin_CallerWhoseClaimWasSentTwiceAndIsOverIsAskedAnew(t *testing.T) {
	store := &refusedTwice{Memory: idemtest.NewMemory(nil)}
	k := newKeeper(t, store, idempotency.Rerun)
	holder := crash(t, k)
	store.between = func() { _ = holder.Release(t.Context()) }
	r, err := k.Do(t.Context(), "s", "k", nil, answer("ran"))
	wantResult(t, r, err, "ran", false)
}

func TestBegin_UnknownOutcomeIsAskedAboutUnderATokenOfItsOwn(t *testing.T) {
	for name, begin := range map[string]func(*idempotency.Keeper) (idempotency.Attempt, error){
		"Begin": func(k *idempotency.Keeper) (idempotency.Attempt, error) {
			return k.Begin(t.Context(), "s", "k", k.Fingerprint(nil))
		},
		"BeginIfSeen": func(k *idempotency.Keeper) (idempotency.Attempt, error) {
			return k.BeginIfSeen(t.Context(), "s", "k", k.Fingerprint(nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Refuse(func(context.Context, *idempotency.Claim) (idempotency.Verdict, error) {
				return idempotency.DidNotHappen(), nil
			}))
			_ = crash(t, k).Abandon(t.Context())
			a, err := begin(k)
			if err != nil || a.Claim == nil || a.Claim.Attempt() != 2 {
				t.Fatalf("%+v, %v", a, err)
			}
		})
	}
}

func TestBeginIfSeen_RunsAReleasedKeyAndNotOneWhoseAttemptsWereWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slow{Memory: idemtest.NewMemory(nil), delay: time.Second, begun: time.Now()}
		k := newKeeper(t, store, idempotency.Rerun)
		look := func() (idempotency.Attempt, error) { return k.BeginIfSeen(t.Context(), "s", "k", k.Fingerprint(nil)) }
		_, _ = k.Do(t.Context(), "s", "k", nil, mustNotRun(t))
		time.Sleep(time.Minute)
		store.delay = 0
		if _, err := look(); !errors.Is(err, idempotency.ErrNotSeen) {
			t.Fatal(err)
		}
		c := crash(t, k)
		if _, err := look(); !errors.Is(err, idempotency.ErrInFlight) {
			t.Fatal(err)
		}
		_ = c.Release(t.Context())
		a, err := look()
		if err != nil || a.Claim == nil || a.Claim.Attempt() != 2 {
			t.Fatalf("%+v, %v", a, err)
		}
	})
}

func TestFirst_IsTrueForTheFirstAttemptOnly(t *testing.T) {
	k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Rerun)
	for attempt := 1; attempt <= 3; attempt++ {
		c := crash(t, k)
		if c.First() != (attempt == 1) || c.Attempt() != attempt {
			t.Fatalf("attempt %d: First is %v", c.Attempt(), c.First())
		}
		if err := c.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFromContext_ChildrenAndStrangers(t *testing.T) {
	if _, ok := idempotency.FromContext(t.Context()); ok {
		t.Fatal("a claim out of nowhere")
	}
	k := newKeeper(t, idemtest.NewMemory(nil), idempotency.Rerun)
	c := crash(t, k)
	type own struct{}
	child, cancel := context.WithCancel(c.Hold(context.WithValue(t.Context(), own{}, 1)))
	defer cancel()
	if got, ok := idempotency.FromContext(child); !ok || got != c || child.Value(own{}) != 1 {
		t.Fatal("values are lost")
	}
	_ = c.Release(t.Context())
	if child.Err() == nil {
		t.Fatal("the context outlives the claim")
	}
}

func TestLog_FailingStoreIsToldOnceASecondAndWithoutTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		store := &lostReply{Memory: idemtest.NewMemory(nil)}
		store.lose.Store(true)
		k, _ := idempotency.New(store, hashKey, idempotency.Rerun, &idempotency.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for range 2 {
			for range 100 {
				_, _ = k.Do(t.Context(), "canary-scope", "canary-key", []byte("canary-body"), mustNotRun(t))
			}
			time.Sleep(time.Second)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 || strings.Contains(log.String(), "canary") {
			t.Fatalf("%d lines:\n%s", n, log.String())
		}
	})
}
