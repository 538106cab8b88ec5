package idempotency

import (
	"context"
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
	// Linger is how long a claim may still be on its way to the store after its
	// attempt has given it up: waiting in the client to be sent again, or in the
	// buffers of a connection that has died. A claim that lands within it takes
	// nothing. Default StoreTimeout and 2 minutes, the maximum segment lifetime
	// of RFC 9293; Linux tries for 100 s to deliver what a closed connection had
	// left to send, less where the dialer sets TCP_USER_TIMEOUT. Every record is
	// kept for Linger at least.
	Linger time.Duration
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
	segmentLifetime  = 2 * time.Minute
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
	setDefault(&out.Linger, out.StoreTimeout+segmentLifetime)
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
	case o.Linger < o.StoreTimeout || o.Linger > maxDuration+segmentLifetime:
		return invalid("Options.Linger is %v, not from StoreTimeout (%v) to 10 years", o.Linger, o.StoreTimeout)
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
		Terms: k.opts.terms(), Token: NewToken(time.Now()),
	}
	attempt, err := k.begin(ctx, req)
	k.meter.begun(ctx, attempt, err)
	return attempt, err
}

func (k *Keeper) begin(ctx context.Context, req ClaimRequest) (Attempt, error) {
	rec, err := k.claim(ctx, &req)
	if err != nil {
		return Attempt{}, err
	}
	req.Look = false // it was seen, or else the answer stands
	if rec.Status == Seen {
		if rec, err = k.claim(ctx, &req); err != nil {
			return Attempt{}, err
		}
	}
	if rec.Status == Unknown {
		return k.reconcile(ctx, req, rec)
	}
	return k.answer(req, rec)
}

// terms are those of every claim.
func (o *Options) terms() Terms {
	return Terms{Lease: o.Lease, Retention: max(o.Retention, o.Linger), Linger: o.Linger}
}

// settlement is how a claim ends so.
func (o *Options) settlement(outcome Outcome, result []byte) Settlement {
	kept := max(o.Retention, o.Linger)
	s := Settlement{Outcome: outcome, Retention: kept, UnknownRetention: kept, Linger: o.Linger}
	switch outcome {
	case OutcomeDone:
		s.Result = result
	case OutcomeReleased:
		s.Retention = max(o.ReleasedRetention, o.Linger)
	case OutcomeNotKept, OutcomeUnknown:
	}
	return s
}

// claim asks the store. A token is for one question: the client may send it
// twice, and where the first copy was refused, its answer was lost and the key
// has become free meanwhile, the second hears Ended. The caller still waits, so
// it is asked anew.
func (k *Keeper) claim(ctx context.Context, req *ClaimRequest) (Record, error) {
	rec, err := k.ask(ctx, req)
	if err == nil && rec.Status == Ended {
		req.Token = NewToken(time.Now())
		rec, err = k.ask(ctx, req)
	}
	return rec, err
}

// ask asks the store once, within its time limit.
func (k *Keeper) ask(ctx context.Context, req *ClaimRequest) (Record, error) {
	limited, cancel := context.WithTimeout(ctx, k.opts.StoreTimeout)
	rec, err := k.store.Claim(limited, *req)
	cancel()
	if err == nil || errors.Is(err, ErrCorrupt) {
		return rec, err
	}
	if ctx.Err() == nil { // a caller who has left is not the store's failure
		k.meter.storeFailed(ctx, "claim", err)
	}
	if !errors.Is(err, ErrNotSent) {
		k.withdraw(ctx, *req)
	}
	return rec, fmt.Errorf("claim: %w: %w", ErrUnavailable, err)
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
	case Ended:
		return Attempt{}, fmt.Errorf("claim: %w: %w", ErrUnavailable, ErrStale)
	case Seen: // begin has claimed it since
	}
	return Attempt{}, fmt.Errorf("%w: status %d", ErrCorrupt, rec.Status)
}

// reconcile asks the policy about the attempt that ended unknown, and writes
// down what it says. Both writes name that attempt's token, so a verdict that
// has become old, since yet another attempt came and went, changes nothing.
func (k *Keeper) reconcile(ctx context.Context, req ClaimRequest, rec Record) (Attempt, error) {
	ended := req
	ended.Token, req.Token = rec.Token, NewToken(time.Now())
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
	if rec, err = k.claim(ctx, &req); err != nil {
		return Attempt{}, err
	}
	return k.answer(req, rec)
}

// detached outlives the caller's context, and ends by itself: a client that
// hangs up must not keep a result from being stored.
func detached(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}
