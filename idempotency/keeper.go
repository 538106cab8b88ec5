package idempotency

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Options tunes a [Keeper]; nil and zero fields take the defaults.
type Options struct {
	// Lease is how long a running claim stands without a heartbeat, from 1 s;
	// default 30 s. After a crash it is how long the next attempt waits. A
	// heartbeat is sent after each third of it, so most operations send none.
	Lease time.Duration
	// Retention is how long results and unknown outcomes are kept; default 24 h.
	Retention time.Duration
	// ReleasedRetention is how long a released key remembers that it was tried;
	// default 10 min.
	ReleasedRetention time.Duration
	// StoreTimeout bounds each call of the store; default 2 s.
	StoreTimeout time.Duration
	// MaxResult is the most bytes of a result that are kept; default 64 KiB.
	// A larger one is not kept ([ErrNotKept]).
	MaxResult int
	// Logger hears of failing stores, at most once a second; default
	// slog.Default().
	Logger *slog.Logger
}

const (
	minHashKey       = 32
	maxKey           = 1024
	maxScope         = 4096
	defaultLease     = 30 * time.Second
	defaultRetention = 24 * time.Hour
	defaultReleased  = 10 * time.Minute
	defaultTimeout   = 2 * time.Second
	defaultMaxResult = 64 << 10
	maxDuration      = 10 * 366 * 24 * time.Hour
)

func (o *Options) withDefaults() Options {
	var out Options
	if o != nil {
		out = *o
	}
	setDefault(&out.Lease, defaultLease)
	setDefault(&out.Retention, defaultRetention)
	setDefault(&out.ReleasedRetention, min(defaultReleased, out.Retention))
	setDefault(&out.StoreTimeout, defaultTimeout)
	setDefault(&out.MaxResult, defaultMaxResult)
	if out.Logger == nil {
		out.Logger = slog.Default()
	}
	return out
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o *Options) validate() error {
	switch {
	case o.Lease < time.Second || o.Lease > maxDuration:
		return invalid("Options.Lease is %v, not from 1s to 10 years", o.Lease)
	case o.Retention < o.Lease || o.Retention > maxDuration:
		return invalid("Options.Retention is %v, not from Lease (%v) to 10 years", o.Retention, o.Lease)
	case o.ReleasedRetention < time.Millisecond || o.ReleasedRetention > o.Retention:
		return invalid("Options.ReleasedRetention is %v, not from 1ms to Retention (%v)", o.ReleasedRetention, o.Retention)
	case o.StoreTimeout < time.Millisecond || o.StoreTimeout > maxDuration:
		return invalid("Options.StoreTimeout is %v, not from 1ms", o.StoreTimeout)
	case o.MaxResult < 0:
		return invalid("Options.MaxResult is %d", o.MaxResult)
	}
	return nil
}

// Keeper decides for each attempt whether it runs. It is safe for concurrent
// use and needs no closing.
type Keeper struct {
	store  Store
	policy Policy
	opts   Options
	hash   *hasher
	meter  *telemetry
}

// New returns a Keeper on store.
//
// hashKey, at least 32 bytes, keys the hashes under which everything is stored.
// It is shared by the fleet and must not change while records live: under
// another key every operation is new. onUnknown is [Rerun] or [Refuse].
func New(store Store, hashKey []byte, onUnknown Policy, opts *Options) (*Keeper, error) {
	o := opts.withDefaults()
	switch {
	case store == nil:
		return nil, invalid("store is nil")
	case len(hashKey) < minHashKey:
		return nil, invalid("hashKey has %d bytes, at least %d are needed", len(hashKey), minHashKey)
	case !onUnknown.rerun && onUnknown.reconcile == nil:
		return nil, invalid("onUnknown is neither Rerun nor Refuse with a function")
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	return &Keeper{store: store, policy: onUnknown, opts: o, hash: newHasher(hashKey), meter: newTelemetry(o.Logger)}, nil
}

// MaxResult returns the most bytes of a result that are kept.
func (k *Keeper) MaxResult() int { return k.opts.MaxResult }

// ID returns the ID that claims on key in scope have.
func (k *Keeper) ID(scope, key string) ClaimID {
	return k.hash.sum(domainClaim, nil, scope, key)
}

// Fingerprint returns the keyed hash of a payload and of the words that belong
// to it, as a method and a path.
func (k *Keeper) Fingerprint(payload []byte, words ...string) Fingerprint {
	return k.hash.sum(domainFingerprint, payload, words...)
}

// Attempt is the answer to [Keeper.Begin]: either a claim or a result.
type Attempt struct {
	// Claim is set where the caller has to run the operation now. It ends with
	// exactly one of [Claim.Complete], [Claim.CompleteNotKept], [Claim.Release]
	// and [Claim.Abandon].
	Claim *Claim
	// Result is what an earlier attempt left; its meaning is the caller's.
	Result []byte
}

// Begin starts an attempt. scope is the principal that the key belongs to: the
// same key in another scope is another operation. The scope and the key must
// not be empty; they are bounded by 4,096 and 1,024 bytes.
//
// Errors are [ErrInFlight], [ErrMismatch], [ErrUnknown], [ErrNotKept],
// [ErrCorrupt], [ErrInvalid], and [ErrUnavailable], after which the operation
// must not be run: the claim may be held by nobody or, for a lease, by this
// lost attempt.
func (k *Keeper) Begin(ctx context.Context, scope, key string, fingerprint Fingerprint) (Attempt, error) {
	return k.attempt(ctx, scope, key, fingerprint, false)
}

// BeginIfSeen is Begin for a key that was seen before. For one that never was,
// it claims nothing and writes nothing, and returns [ErrNotSeen]: the caller
// may then refuse the attempt for a reason of its own, as cheaply as it can be
// done, or call Begin.
func (k *Keeper) BeginIfSeen(ctx context.Context, scope, key string, fingerprint Fingerprint) (Attempt, error) {
	return k.attempt(ctx, scope, key, fingerprint, true)
}

func (k *Keeper) attempt(ctx context.Context, scope, key string, fingerprint Fingerprint, look bool) (Attempt, error) {
	switch {
	case scope == "" || len(scope) > maxScope:
		return Attempt{}, invalid("scope has %d bytes, not from 1 to %d", len(scope), maxScope)
	case key == "" || len(key) > maxKey:
		return Attempt{}, invalid("key has %d bytes, not from 1 to %d", len(key), maxKey)
	}
	req := ClaimRequest{
		ID: k.ID(scope, key), Fingerprint: fingerprint, Rerun: k.policy.rerun, Look: look,
		Terms: Terms{Lease: k.opts.Lease, Retention: k.opts.Retention},
	}
	_, _ = rand.Read(req.Token[:]) // never fails
	attempt, err := k.begin(ctx, req)
	k.meter.begun(ctx, attempt, err)
	return attempt, err
}

func (k *Keeper) begin(ctx context.Context, req ClaimRequest) (Attempt, error) {
	rec, err := k.claim(ctx, req)
	if err != nil {
		return Attempt{}, err
	}
	if rec.Status == Unknown {
		return k.reconcile(ctx, req, rec)
	}
	return k.answer(req, rec)
}

// claim asks the store within its time limit.
func (k *Keeper) claim(ctx context.Context, req ClaimRequest) (Record, error) {
	limited, cancel := context.WithTimeout(ctx, k.opts.StoreTimeout)
	rec, err := k.store.Claim(limited, req)
	cancel()
	if err == nil || errors.Is(err, ErrCorrupt) {
		return rec, err
	}
	if ctx.Err() == nil { // a caller who has left is not the store's failure
		k.meter.storeFailed(ctx, "claim", err)
	}
	if !errors.Is(err, ErrNotSent) {
		k.withdraw(ctx, req)
	}
	return rec, fmt.Errorf("claim: %w: %w", ErrUnavailable, err)
}

// withdrawDelays are the pauses before each try to withdraw a claim. The first
// try may overtake the claim itself, which is still on its way then.
var withdrawDelays = []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond, time.Second}

// withdraw takes back a claim whose reply was lost. Nothing ran, so it may be
// released; without this the key would be refused until the lease ends. It is
// an attempt, made by a bounded number of goroutines: a store that is down has
// other worries, and then the lease ends it.
func (k *Keeper) withdraw(ctx context.Context, req ClaimRequest) {
	if !k.meter.withdrawals.TryAcquire() {
		return
	}
	go func() {
		defer k.meter.withdrawals.Release()
		h := Holder{ID: req.ID, Token: req.Token, Fingerprint: req.Fingerprint}
		for _, delay := range withdrawDelays {
			time.Sleep(delay)
			limited, cancel := detached(ctx, k.opts.StoreTimeout)
			err := k.store.Settle(limited, h, Settlement{
				Outcome: OutcomeReleased, Retention: k.opts.ReleasedRetention, UnknownRetention: k.opts.Retention,
			})
			cancel()
			if err == nil {
				return
			}
		}
	}()
}

// answer turns what the store knows into what the caller hears.
func (k *Keeper) answer(req ClaimRequest, rec Record) (Attempt, error) {
	switch rec.Status {
	case Claimed:
		return Attempt{Claim: newClaim(k, req, rec)}, nil
	case Done:
		return Attempt{Result: rec.Result}, nil
	case Running:
		return Attempt{}, &InFlightError{Lease: rec.Lease}
	case NotKept:
		return Attempt{}, ErrNotKept
	case Mismatch:
		return Attempt{}, ErrMismatch
	case Unknown:
		return Attempt{}, ErrUnknown
	case Absent:
		return Attempt{}, ErrNotSeen
	}
	return Attempt{}, fmt.Errorf("%w: status %d", ErrCorrupt, rec.Status)
}

// reconcile asks the policy about the attempt that ended unknown, and writes
// down what it says. Both writes name that attempt's token, so a verdict that
// has become old, since yet another attempt came and went, changes nothing.
func (k *Keeper) reconcile(ctx context.Context, req ClaimRequest, rec Record) (Attempt, error) {
	ended := req
	ended.Token = rec.Token
	old := newClaim(k, ended, rec)
	verdict, err := k.policy.reconcile(ctx, old)
	if err != nil {
		return Attempt{}, fmt.Errorf("%w: reconcile: %w", ErrUnknown, err)
	}
	switch verdict.kind {
	case verdictHappened:
		outcome := OutcomeDone
		if verdict.result == nil || len(verdict.result) > k.opts.MaxResult {
			outcome = OutcomeNotKept
		}
		if err := old.settle(ctx, outcome, verdict.result); err != nil && !errors.Is(err, ErrStale) {
			return Attempt{}, err
		}
	case verdictNot:
		req.Replace = rec.Token
	case verdictUnknown:
		return Attempt{}, ErrUnknown
	}
	if rec, err = k.claim(ctx, req); err != nil {
		return Attempt{}, err
	}
	return k.answer(req, rec)
}

// detached outlives the caller's context, and ends by itself: a client that
// hangs up must not keep a result from being stored.
func detached(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}
