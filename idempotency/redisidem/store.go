package redisidem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/internal/redisscript"
)

// Options tunes a [Store]; nil and zero fields take the defaults.
type Options struct {
	// Prefix starts every key; default "fc:idem". Letters, digits and :-_. only,
	// 64 at most.
	Prefix string
	// Sharded asks for each record by itself. It is set by itself for a
	// *redis.ClusterClient and a *redis.Ring; set it where such a client is
	// wrapped, or behind a proxy that spreads keys.
	Sharded bool
	// Timeout bounds one trip to Redis that serves many callers; default 5 s. It
	// should be no shorter than the keeper's StoreTimeout.
	Timeout time.Duration
	// Logger hears when Redis is away and when it is back; default slog.Default.
	Logger *slog.Logger
}

// Store is an [idempotency.Store] in Redis.
type Store struct {
	client  redis.UniversalClient
	keyHead string
	claims  *trip
	ends    *trip
}

var _ idempotency.Store = (*Store)(nil)

// New returns a Store on client, which it neither dials nor closes.
func New(client redis.UniversalClient, opts *Options) (*Store, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	switch {
	case client == nil:
		return nil, errors.New("redisidem: client is nil")
	case !validPrefix(o.Prefix):
		return nil, fmt.Errorf("redisidem: Options.Prefix %q has characters other than letters, digits and :-_. or more than 64", o.Prefix)
	case o.Timeout < 0 || o.Timeout > 0 && o.Timeout < time.Millisecond:
		return nil, fmt.Errorf("redisidem: Options.Timeout is %v, less than 1ms", o.Timeout)
	}
	switch client.(type) {
	case *redis.ClusterClient, *redis.Ring:
		o.Sharded = true
	}
	runner := redisscript.NewRunner(client, &redisscript.Options{Timeout: o.Timeout, Logger: o.Logger, Owner: "redisidem"})
	return &Store{
		client: client, keyHead: keyHead(o.Prefix),
		claims: newTrip(runner, claimScript, 4, &o),
		ends:   newTrip(runner, endScript, 5, &o),
	}, nil
}

// Claim implements [idempotency.Store].
func (s *Store) Claim(ctx context.Context, req idempotency.ClaimRequest) (idempotency.Record, error) {
	reply, err := s.claims.do(ctx, item{key: s.recordKey(req.ID), args: [5]any{
		who(req.Fingerprint, req.Token), ms(req.Terms.Lease), ms(req.Terms.Lease + req.Terms.Retention), mode(&req),
	}})
	if err != nil {
		return idempotency.Record{}, err
	}
	return parseRecord(reply)
}

// mode is how claim.lua is told what may be taken.
func mode(req *idempotency.ClaimRequest) string {
	var buf [32]byte
	text := digits(append(buf[:0], flag(req.Rerun), flag(req.Look)), ms(req.Terms.Linger))
	if req.Replace != (idempotency.Token{}) {
		text = append(text, req.Replace[:]...)
	}
	return string(text)
}

func flag(set bool) byte {
	if set {
		return '1'
	}
	return '0'
}

// who is a fingerprint and a token, as they stand in the record.
func who(fingerprint idempotency.Fingerprint, token idempotency.Token) string {
	var buf [32]byte
	copy(buf[:16], fingerprint[:])
	copy(buf[16:], token[:])
	return string(buf[:])
}

// digits appends a number of milliseconds in 13 digits.
func digits(to []byte, n int64) []byte {
	n = min(max(n, 0), 9_999_999_999_999)
	for unit := int64(1_000_000_000_000); unit > 0; unit /= 10 {
		to = append(to, byte('0'+n/unit%10))
	}
	return to
}

// parseRecord reads the reply of claim.lua.
func parseRecord(reply any) (idempotency.Record, error) {
	fields, ok := reply.([]any)
	if !ok || len(fields) != 5 {
		return idempotency.Record{}, idempotency.ErrCorrupt
	}
	status, ok0 := fields[0].(int64)
	attempt, ok1 := fields[1].(int64)
	started, ok2 := fields[2].(int64)
	lease, ok3 := fields[3].(int64)
	text, ok4 := fields[4].(string)
	if !ok0 || !ok1 || !ok2 || !ok3 || !ok4 || status < int64(idempotency.Claimed) || status > int64(idempotency.Seen) {
		return idempotency.Record{}, idempotency.ErrCorrupt
	}
	rec := idempotency.Record{
		Status:  idempotency.Status(status),
		Attempt: int(attempt),
		Started: time.UnixMilli(started),
		Lease:   time.Duration(lease) * time.Millisecond,
	}
	switch rec.Status {
	case idempotency.Done:
		rec.Result = []byte(text)
	case idempotency.Unknown:
		if len(text) != len(rec.Token) {
			return idempotency.Record{}, idempotency.ErrCorrupt
		}
		rec.Token = idempotency.Token([]byte(text))
	case idempotency.Claimed, idempotency.Running, idempotency.NotKept, idempotency.Mismatch, idempotency.Absent, idempotency.Ended, idempotency.Seen:
	}
	return rec, nil
}

// Extend implements [idempotency.Store].
func (s *Store) Extend(ctx context.Context, h idempotency.Holder, t idempotency.Terms) error {
	return s.end(ctx, h, 'x', t.Linger, ms(t.Lease+t.Retention), ms(t.Lease), nil)
}

// Settle implements [idempotency.Store].
func (s *Store) Settle(ctx context.Context, h idempotency.Holder, e idempotency.Settlement) error {
	var state byte
	switch e.Outcome {
	case idempotency.OutcomeDone:
		state = 'd'
	case idempotency.OutcomeNotKept:
		state = 'k'
	case idempotency.OutcomeReleased:
		state = 'f'
	case idempotency.OutcomeUnknown:
		state = 'u'
	default:
		return fmt.Errorf("%w: outcome %d", idempotency.ErrInvalid, e.Outcome)
	}
	return s.end(ctx, h, state, e.Linger, ms(e.Retention), ms(e.UnknownRetention), e.Result)
}

// end takes one step of end.lua.
func (s *Store) end(ctx context.Context, h idempotency.Holder, what byte, linger time.Duration, ttl, other int64, result []byte) error {
	var buf [32]byte
	attempt := min(max(h.Attempt, 0), 9999)
	head := append(buf[:0], what, byte('0'+attempt/1000), byte('0'+attempt/100%10), byte('0'+attempt/10%10), byte('0'+attempt%10))
	head = digits(digits(head, h.Started.UnixMilli()), ms(linger)) // Started is not known of a claim whose reply was lost
	reply, err := s.ends.do(ctx, item{key: s.recordKey(h.ID), args: [5]any{
		who(h.Fingerprint, h.Token), head, ttl, other, result,
	}})
	if err != nil {
		return err
	}
	switch reply {
	case int64(1):
		return nil
	case int64(0):
		return idempotency.ErrStale
	}
	return idempotency.ErrCorrupt
}

// ms rounds up: a time that is not zero never becomes zero.
func ms(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// ErrEviction is returned by [Store.Check].
var ErrEviction = errors.New("redisidem: the server may evict records")

// Check asks the server whether it evicts keys when memory runs out: every
// policy but noeviction may forget that an operation was executed. Call it at
// start-up. A server that does not tell (INFO is refused, or has no such line)
// passes.
func (s *Store) Check(ctx context.Context) error {
	info, err := s.client.Info(ctx, "memory").Result()
	var refused redis.Error
	if errors.As(err, &refused) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("redisidem: check: %w", err)
	}
	for line := range strings.Lines(info) {
		policy, found := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:")
		if found && policy != "noeviction" {
			return fmt.Errorf("%w: maxmemory-policy is %s, set noeviction", ErrEviction, policy)
		}
	}
	return nil
}
