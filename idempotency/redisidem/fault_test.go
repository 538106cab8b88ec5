package redisidem_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/redisidem"
	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
)

func newKeeper(t testing.TB, client redis.UniversalClient, policy idempotency.Policy, o idempotency.Options) *idempotency.Keeper {
	t.Helper()
	store, err := redisidem.New(client, &redisidem.Options{Prefix: testenv.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	o.Logger = slog.New(slog.DiscardHandler)
	keeper, err := idempotency.New(store, []byte("a test key of thirty-two bytes.."), policy, &o)
	if err != nil {
		t.Fatal(err)
	}
	return keeper
}

type work = func(context.Context, *idempotency.Claim) ([]byte, error)

func counted(runs *int, result string) work {
	return func(context.Context, *idempotency.Claim) ([]byte, error) {
		*runs++
		return []byte(result), nil
	}
}

func TestLostReply_OfEachStepIsSentAgainAndTheOperationRunsOnce(t *testing.T) {
	for n := 1; n <= 2; n++ { // 1: the claim's reply, 2: the completion's
		t.Run(fmt.Sprint("reply", n), func(t *testing.T) {
			dialer := faulty.NewDialer()
			client := testenv.Redis(t).Client(t, func(o *redis.Options) { o.Dialer = dialer.DialContext })
			keeper := newKeeper(t, client, idempotency.Rerun, idempotency.Options{})
			warm(t, keeper)
			fault := dialer.CutReply(n, faulty.Contains("evalsha"))
			runs := 0
			for attempt := range 2 {
				r, err := keeper.Do(t.Context(), "s", "k", nil, counted(&runs, "one"))
				if err != nil || string(r.Bytes) != "one" || r.Replayed != (attempt == 1) {
					t.Fatalf("%+v, %v", r, err)
				}
			}
			fault.MustFire(t)
			if runs != 1 {
				t.Fatalf("it ran %d times", runs)
			}
		})
	}
}

// warm loads the scripts, so that the faults strike what they are meant for.
func warm(t *testing.T, k *idempotency.Keeper) {
	t.Helper()
	if _, err := k.Do(t.Context(), "warm", "warm", nil, counted(new(int), "")); err != nil {
		t.Fatal(err)
	}
}

func TestLostReply_WithoutRetriesTheClaimIsTakenBackAndTheKeyUsable(t *testing.T) {
	dialer := faulty.NewDialer()
	client := testenv.Redis(t).Client(t, func(o *redis.Options) { o.Dialer, o.MaxRetries = dialer.DialContext, -1 })
	keeper := newKeeper(t, client, idempotency.Rerun, idempotency.Options{})
	warm(t, keeper)
	fault := dialer.CutReply(1, faulty.Contains("evalsha"))
	runs := 0
	if _, err := keeper.Do(t.Context(), "s", "k", nil, counted(&runs, "one")); !errors.Is(err, idempotency.ErrUnavailable) {
		t.Fatal(err)
	}
	fault.MustFire(t)
	// The withdrawal is on its way; until it arrives the key is in flight.
	for {
		_, err := keeper.Do(t.Context(), "s", "k", nil, counted(&runs, "one"))
		if err == nil {
			break
		}
		if !errors.Is(err, idempotency.ErrInFlight) {
			t.Fatal(err)
		}
	}
	if runs != 1 {
		t.Fatalf("it ran %d times", runs)
	}
}

func TestLostReply_OfTheCompletionKeepsTheResult(t *testing.T) {
	dialer := faulty.NewDialer()
	client := testenv.Redis(t).Client(t, func(o *redis.Options) { o.Dialer, o.MaxRetries = dialer.DialContext, -1 })
	keeper := newKeeper(t, client, idempotency.Rerun, idempotency.Options{})
	warm(t, keeper)
	fault := dialer.CutReply(2, faulty.Contains("evalsha"))
	runs := 0
	for attempt := range 2 {
		r, err := keeper.Do(t.Context(), "s", "k", nil, counted(&runs, "one"))
		if err != nil || string(r.Bytes) != "one" || r.Replayed != (attempt == 1) {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	fault.MustFire(t)
	if runs != 1 {
		t.Fatalf("it ran %d times", runs)
	}
}

func TestScriptFlush_BetweenCallsCostsNothingButATrip(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		keeper := newKeeper(t, client, idempotency.Rerun, idempotency.Options{StoreTimeout: patience})
		for i := range 10 {
			runs := 0
			r, err := keeper.Do(t.Context(), "s", fmt.Sprint(i), nil, func(ctx context.Context, _ *idempotency.Claim) ([]byte, error) {
				runs++
				return []byte("r"), client.ScriptFlush(ctx).Err()
			})
			if err != nil || string(r.Bytes) != "r" || runs != 1 {
				t.Fatal(r, err, runs)
			}
			if err := client.ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestScriptFlush_DuringPipelinedCallsLosesNone(t *testing.T) {
	client := testenv.Redis(t).Client(t)
	keeper := newKeeper(t, client, idempotency.Rerun, idempotency.Options{StoreTimeout: patience})
	ctx, stop := context.WithCancel(t.Context())
	var flusher, callers sync.WaitGroup
	flusher.Go(func() {
		for ctx.Err() == nil {
			if err := client.ScriptFlush(t.Context()).Err(); err != nil {
				t.Errorf("SCRIPT FLUSH: %v", err)
			}
		}
	})
	for i := range 32 {
		callers.Go(func() {
			for j := range 20 {
				key := fmt.Sprintf("%d-%d", i, j)
				runs := 0
				for range 2 {
					r, err := keeper.Do(t.Context(), "s", key, nil, counted(&runs, key))
					if err != nil || string(r.Bytes) != key {
						t.Errorf("%q, %v", r.Bytes, err)
					}
				}
				if runs != 1 {
					t.Errorf("it ran %d times", runs)
				}
			}
		})
	}
	callers.Wait()
	stop()
	flusher.Wait()
}

const patience = 10 * time.Second

func TestFrozenRedis_AnswersUnavailableWithinTheBoundAndRunsNothing(t *testing.T) {
	server := testenv.NewRedis(t)
	const bound = 200 * time.Millisecond
	keeper := newKeeper(t, server.Client(t), idempotency.Rerun, idempotency.Options{StoreTimeout: bound})
	warm(t, keeper)
	server.Stop()
	runs := 0
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			start := time.Now()
			_, err := keeper.Do(t.Context(), "s", fmt.Sprint(i), nil, counted(&runs, ""))
			if took := time.Since(start); !errors.Is(err, idempotency.ErrUnavailable) || took > bound+2*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
	wg.Wait()
	server.Cont()
	if runs != 0 {
		t.Fatalf("%d ran", runs)
	}
	// After the thaw nothing is lost for good: what was claimed by a lost
	// attempt is taken back or ends with its lease.
	for deadline := time.Now().Add(patience); ; {
		_, err := keeper.Do(t.Context(), "s", "after", nil, counted(&runs, ""))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestFrozenRedis_AtCompletionTheResultIsReturnedAndTheKeyUnknown(t *testing.T) {
	server := testenv.NewRedis(t)
	keeper := newKeeper(t, server.Client(t), idempotency.Rerun, idempotency.Options{StoreTimeout: 200 * time.Millisecond})
	warm(t, keeper)
	start := time.Now()
	r, err := keeper.Do(t.Context(), "s", "k", nil, func(context.Context, *idempotency.Claim) ([]byte, error) {
		server.Stop()
		return []byte("true"), nil
	})
	if err != nil || string(r.Bytes) != "true" || time.Since(start) > 3*time.Second {
		t.Fatalf("%+v, %v, after %v", r, err, time.Since(start))
	}
	server.Cont()
}

func TestRecords_HaveATTLEachAndKeysShowNothing(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		prefix := testenv.Name(t)
		store, err := redisidem.New(client, &redisidem.Options{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		keeper, err := idempotency.New(store, []byte("a test key of thirty-two bytes.."), idempotency.Rerun, nil)
		if err != nil {
			t.Fatal(err)
		}
		ends := []func(*idempotency.Claim) error{
			func(*idempotency.Claim) error { return nil },
			func(c *idempotency.Claim) error { return c.Complete(t.Context(), []byte("r")) },
			func(c *idempotency.Claim) error { return c.CompleteNotKept(t.Context()) },
			func(c *idempotency.Claim) error { return c.Release(t.Context()) },
			func(c *idempotency.Claim) error { return c.Abandon(t.Context()) },
		}
		for i, end := range ends {
			key := "canary{}:\x00\n" + strings.Repeat("k", i*200)
			a, err := keeper.Begin(t.Context(), "canary", key, keeper.Fingerprint([]byte("canary")))
			if err != nil {
				t.Fatal(err)
			}
			if err := end(a.Claim); err != nil {
				t.Fatal(err)
			}
		}
		keys, err := client.Keys(t.Context(), prefix+"*").Result()
		if err != nil || len(keys) != len(ends) {
			t.Fatalf("keys %q, %v", keys, err)
		}
		for _, key := range keys {
			ttl, err := client.PTTL(t.Context(), key).Result()
			if err != nil || ttl <= 0 || ttl > 25*time.Hour {
				t.Errorf("%s: TTL %v, %v", key, ttl, err)
			}
			value, _ := client.Get(t.Context(), key).Result()
			if len(key) > len(prefix)+40 || strings.Contains(key+value, "canary") {
				t.Errorf("%q: %q", key, value)
			}
		}
	})
}

func TestRecord_DamagedOrNewerIsRefusedAndLeftAlone(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(t, client)
		for name, edit := range map[string]func(string) string{
			"newer":       func(s string) string { return "2" + s[1:] },
			"short":       func(s string) string { return s[:40] },
			"empty":       func(string) string { return "" },
			"other state": func(s string) string { return s[:1] + "x" + s[2:] },
			"no number":   func(s string) string { return s[:7] + "0x00000000000" + s[20:] },
			"no attempt":  func(s string) string { return s[:3] + " 1e3"[:4] + s[7:] },
		} {
			req := idempotency.ClaimRequest{Terms: idempotency.Terms{Lease: time.Minute, Retention: time.Hour}, Rerun: true}
			copy(req.ID[:], testenv.Name(t))
			req.Token[0] = 1
			if _, err := store.Claim(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			keys, _ := client.Keys(t.Context(), store.KeyOf(req.ID)).Result()
			if len(keys) != 1 {
				t.Fatalf("keys %v", keys)
			}
			good, _ := client.Get(t.Context(), keys[0]).Result()
			bad := edit(good)
			if err := client.Set(t.Context(), keys[0], bad, time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
			h := idempotency.Holder{ID: req.ID, Token: req.Token, Attempt: 1, Started: time.Now()}
			_, err := store.Claim(t.Context(), req)
			errs := []error{
				err, store.Extend(t.Context(), h, req.Terms),
				store.Settle(t.Context(), h, idempotency.Settlement{Outcome: idempotency.OutcomeDone, Retention: time.Hour, UnknownRetention: time.Hour}),
			}
			for _, err := range errs {
				if !errors.Is(err, idempotency.ErrCorrupt) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if after, _ := client.Get(t.Context(), keys[0]).Result(); after != bad {
				t.Errorf("%s: the record was overwritten", name)
			}
		}
	})
}

func TestRecord_OfAnotherTypeFailsNobodyElseInTheBatch(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(t, client)
		ids := make([]idempotency.ClaimID, 50)
		for i := range ids {
			copy(ids[i][:], fmt.Sprint(i, testenv.Name(t)))
		}
		if err := client.RPush(t.Context(), store.KeyOf(ids[7]), "not ours").Err(); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i, id := range ids {
			wg.Go(func() {
				_, err := store.Claim(t.Context(), idempotency.ClaimRequest{
					ID: id, Token: idempotency.Token{1}, Terms: idempotency.Terms{Lease: time.Minute, Retention: time.Hour},
				})
				if (i == 7) != errors.Is(err, idempotency.ErrCorrupt) || i != 7 && err != nil {
					t.Errorf("claim %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestLease_OfADeadProcessEndsOnTheStoresClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keeper := newKeeper(t, testenv.Bubble(t), idempotency.Rerun, idempotency.Options{})
		a, err := keeper.Begin(t.Context(), "s", "k", keeper.Fingerprint(nil))
		if err != nil {
			t.Fatal(err)
		}
		runs := 0
		time.Sleep(30*time.Second - time.Millisecond)
		if _, err := keeper.Do(t.Context(), "s", "k", nil, counted(&runs, "")); !errors.Is(err, idempotency.ErrInFlight) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		if _, err := keeper.Do(t.Context(), "s", "k", nil, counted(&runs, "second")); err != nil {
			t.Fatal(err)
		}
		if err := a.Claim.Complete(t.Context(), []byte("first")); !errors.Is(err, idempotency.ErrStale) {
			t.Fatal(err)
		}
		time.Sleep(24*time.Hour - time.Second)
		if r, err := keeper.Do(t.Context(), "s", "k", nil, counted(&runs, "")); err != nil || string(r.Bytes) != "second" {
			t.Fatal(r, err)
		}
		time.Sleep(time.Second)
		if _, err := keeper.Do(t.Context(), "s", "k", nil, counted(&runs, "new")); err != nil || runs != 2 {
			t.Fatal(runs, err)
		}
	})
}

func TestOutOfMemory_RefusesTheClaimAndStillStoresTheResult(t *testing.T) {
	server := testenv.NewRedis(t)
	client := server.Client(t)
	keeper := newKeeper(t, client, idempotency.Rerun, idempotency.Options{})
	warm(t, keeper)
	runs := 0
	_, err := keeper.Do(t.Context(), "s", "k", nil, func(ctx context.Context, _ *idempotency.Claim) ([]byte, error) {
		return []byte("kept"), client.ConfigSet(ctx, "maxmemory", "1").Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keeper.Do(t.Context(), "s", "new", nil, counted(&runs, "")); !errors.Is(err, idempotency.ErrUnavailable) || runs != 0 {
		t.Fatal(err, runs)
	}
	if err := client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if r, err := keeper.Do(t.Context(), "s", "k", nil, counted(&runs, "")); err != nil || string(r.Bytes) != "kept" {
		t.Fatal(r, err)
	}
}

func TestCheck_NamesAServerThatEvicts(t *testing.T) {
	server := testenv.NewRedis(t)
	client := server.Client(t)
	store := newStore(t, client)
	if err := store.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	if err := store.Check(t.Context()); !errors.Is(err, redisidem.ErrEviction) {
		t.Fatal(err)
	}
	if err := newStore(t, testenv.Mini(t)).Check(t.Context()); err != nil {
		t.Fatalf("a server that does not tell: %v", err)
	}
}

func TestNew_MistakesShowAtStartUp(t *testing.T) {
	if _, err := redisidem.New(nil, nil); err == nil {
		t.Error("no client")
	}
	for _, prefix := range []string{"a{b}", "a b", "ä", "a\n", strings.Repeat("p", 65)} {
		if _, err := redisidem.New(testenv.Mini(t), &redisidem.Options{Prefix: prefix}); err == nil {
			t.Errorf("prefix %q", prefix)
		}
	}
}
