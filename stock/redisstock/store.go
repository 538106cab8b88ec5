package redisstock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/internal/redisscript"
	"github.com/firstcome/firstcome/stock"
)

// Journal says what becomes of the events that a pool writes beside its
// changes. The zero value is refused: a journal that nobody relays would fill
// up and stop the sale, and events that nobody writes can't be had later.
type Journal struct {
	mode  uint8
	bound int64
}

// JournalOff writes no events.
var JournalOff = Journal{mode: 1}

// JournalRelayed writes events, which a relay must publish and trim (see
// [Store.ReadJournal]). When bound entries wait, reservations are refused with
// [stock.ErrJournalFull]; confirming, cancelling and expiring still append.
// An entry holds the events of one step, a batch of reservations being one.
// bound 0 means 100,000.
func JournalRelayed(bound int64) Journal {
	if bound == 0 {
		bound = 100_000
	}
	return Journal{mode: 2, bound: bound}
}

// Options tunes a [Store]; zero fields take the defaults.
type Options struct {
	// Prefix begins every key; default "fc". Letters, digits, "_" and "-".
	Prefix string
	// Retention is how long a cancelled, expired or returned ID is remembered,
	// so that a late repeat of it is not a new request; default 24 h. It must
	// not be shorter than idempotency keys live.
	Retention time.Duration
	// MaxRecords bounds how many ended reservations of one buyer are kept in
	// one pool; default 256. Those that are held or sold are bounded by the
	// pool's limit, and all of them by 16 times this number.
	MaxRecords int
	// MaxBatch bounds the requests that share one script call; default 512,
	// at most 1,000.
	MaxBatch int
	// MaxQueue bounds the requests of one pool that wait in this process;
	// default 65,536. Beyond it the answer is [stock.ErrBusy].
	MaxQueue int
	// Flights is how many batches of one pool leave before the first is back.
	// Default 0, by distance: where Redis' smallest recent trip is under 0.3 ms
	// it is one, which keeps the order of arrival, else up to eight, which keep
	// it to within a trip. A batch that hangs holds up no other in any case.
	Flights int
	// Memory is how long a refusal is repeated from memory to first attempts;
	// default 100 ms. Negative means never.
	Memory time.Duration
	// Timeout bounds one trip to Redis that serves many callers; default 5 s.
	Timeout time.Duration
	// Replicas is on how many replicas an answer shall stand before it is
	// given (Redis' WAIT); default 0, the memory of one server. Hold.Replicas
	// tells how many had it when ReplicaWait (default 100 ms, at most 2 s) was
	// over. Fewer than asked for is not an error: what was answered stands, in
	// the weaker grade, and the same ID may be sent again. Without a ledger it
	// narrows what a failover can lose; it doesn't close it.
	Replicas    int
	ReplicaWait time.Duration
	// AutoRebuild lets [Store.Run] rebuild a fenced pool from the ledger.
	AutoRebuild bool
	// Logger hears what Run does, and when Redis is away and back; default
	// slog.Default.
	Logger *slog.Logger
}

func (o *Options) normalize() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Prefix == "" {
		out.Prefix = "fc"
	}
	for _, c := range out.Prefix {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return out, fmt.Errorf("redisstock: Options.Prefix holds %q, want letters, digits, _ and -", c)
		}
	}
	defaultTo(&out.Retention, 24*time.Hour)
	defaultTo(&out.MaxRecords, 256)
	defaultTo(&out.MaxBatch, 512)
	defaultTo(&out.MaxQueue, 1<<16)
	defaultTo(&out.Memory, 100*time.Millisecond)
	defaultTo(&out.Timeout, 5*time.Second)
	defaultTo(&out.ReplicaWait, 100*time.Millisecond)
	if out.Logger == nil {
		out.Logger = slog.Default()
	}
	switch {
	case out.Retention < time.Second:
		return out, errors.New("redisstock: Options.Retention is under a second")
	case out.MaxRecords < 1:
		return out, errors.New("redisstock: Options.MaxRecords is negative")
	case out.MaxBatch < 1 || out.MaxBatch > 1000:
		return out, errors.New("redisstock: Options.MaxBatch is not in 1 to 1,000")
	case out.MaxQueue < 1 || out.Flights < 0 || out.Timeout < 0:
		return out, errors.New("redisstock: Options.MaxQueue, Flights or Timeout is negative")
	case out.Replicas < 0 || out.ReplicaWait < time.Millisecond || out.ReplicaWait > 2*time.Second:
		return out, errors.New("redisstock: Options.Replicas is negative, or ReplicaWait not in 1ms to 2s")
	}
	return out, nil
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Store keeps pools on Redis. Use [New]. It is safe for concurrent use.
type Store struct {
	client  redis.UniversalClient
	runner  *redisscript.Runner
	ledger  stock.Ledger
	journal Journal
	opts    Options
	scripts scripts

	pools   sync.Map // [8]byte -> *pool
	opening singleflight.Group
	strange strangers
	names   directory
	fenced  chan *pool // pools that Run should rebuild
}

var (
	_ stock.Store         = (*Store)(nil)
	_ stock.JournalReader = (*Store)(nil)
)

// New returns a Store on client, which may speak to a single server, Sentinel
// or a Cluster, and stays the caller's to close. Without a ledger (nil) Redis
// alone decides, and a Redis that loses its data has lost the sale.
func New(client redis.UniversalClient, ledger stock.Ledger, journal Journal, opts *Options) (*Store, error) {
	if client == nil {
		return nil, errors.New("redisstock: client is nil")
	}
	if journal.mode == 0 || journal.bound < 0 {
		return nil, errors.New("redisstock: journal is neither JournalOff nor JournalRelayed")
	}
	o, err := opts.normalize()
	if err != nil {
		return nil, err
	}
	if o.Replicas > 0 && !redisscript.CanReplicate(client) {
		return nil, errors.New("redisstock: Options.Replicas needs a *redis.Client or a *redis.ClusterClient")
	}
	if o.Replicas > 0 && !redisscript.CanWait(client, o.ReplicaWait) {
		return nil, fmt.Errorf("redisstock: Options.ReplicaWait is %v, not less than the client's ReadTimeout", o.ReplicaWait)
	}
	if o.AutoRebuild && ledger == nil {
		return nil, errors.New("redisstock: Options.AutoRebuild needs a ledger to rebuild from")
	}
	return &Store{
		client:  client,
		runner:  redisscript.NewRunner(client, &redisscript.Options{Timeout: o.Timeout, MaxQueue: o.MaxQueue, Logger: o.Logger, Owner: "redisstock"}),
		ledger:  ledger,
		journal: journal,
		opts:    o,
		scripts: standard,
		fenced:  make(chan *pool, 64),
	}, nil
}

// pool is what this process knows of a pool.
type pool struct {
	part   [8]byte
	opened *stock.Pool // its terms as they were opened: the names of its items never change
	keys   []string
	queue  *coalesce.Batcher[ask, answer]

	losers  atomic.Pointer[refusal]
	freed   atomic.Uint64 // how often this process heard of freed units
	sweeps  singleflight.Group
	asking  atomic.Bool // holds past their time are before the ledger
	fences  singleflight.Group
	asked   atomic.Pointer[time.Time] // when the ledger was last asked about the epoch
	retired atomic.Bool

	mu    sync.Mutex
	mark  stock.Mark // the epoch, and the highest seq seen in it
	saved stock.Mark // what the ledger has of it
	given stock.Mark // the highest that came with a new hold

	chores chores // of Run alone
}

// items is how many SKUs the pool has.
func (p *pool) items() int { return max(1, len(p.opened.Items)) }

// known returns the pool's handle if this process has met it.
func (s *Store) known(part [8]byte) (*pool, bool) {
	if p, ok := s.pools.Load(part); ok {
		return p.(*pool), true
	}
	return nil, false
}

// poolOf returns the pool of a SKU; a process that meets it for the first
// time reads from the ledger how far its history goes.
func (s *Store) poolOf(ctx context.Context, sku string) (*pool, error) {
	part := partOf(sku)
	if p, ok := s.known(part); ok {
		return p, nil
	}
	return s.meet(ctx, part, sku)
}

// poolByID returns the pool that an ID names.
func (s *Store) poolByID(ctx context.Context, id stock.ID) (*pool, error) {
	if p, ok := s.known(id.PoolPart()); ok {
		return p, nil
	}
	opened, err := s.readOpened(ctx, id.PoolPart())
	if errors.Is(err, stock.ErrUnknownSKU) && s.ledger != nil {
		// A Redis that lost its data knows no names any more.
		sku, err := s.names.find(ctx, s.ledger, id.PoolPart())
		if err != nil {
			return nil, err
		}
		return s.meet(ctx, id.PoolPart(), sku)
	}
	if err != nil {
		return nil, err
	}
	return s.meet(ctx, id.PoolPart(), opened.SKU)
}

// readOpened reads from Redis what the pool was opened with.
func (s *Store) readOpened(ctx context.Context, part [8]byte) (*stock.Pool, error) {
	text, err := s.client.HGet(ctx, keysOf(s.opts.Prefix, part)[poolKey], "i").Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, stock.ErrUnknownSKU
	case err != nil:
		return nil, unknown("read pool", err)
	}
	return parseOpened(text)
}

func (s *Store) meet(ctx context.Context, part [8]byte, sku string) (*pool, error) {
	if err := s.strange.recently(part); err != nil {
		return nil, err
	}
	ch := s.opening.DoChan(string(part[:]), func() (any, error) {
		if p, ok := s.known(part); ok {
			return p, nil
		}
		// Many callers wait for this one: it may not end with the first of them.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Timeout)
		defer cancel()
		p, err := s.introduce(ctx, part, sku)
		if errors.Is(err, stock.ErrUnknownSKU) || errors.Is(err, stock.ErrRetired) {
			s.strange.add(part, err)
		}
		return p, err
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*pool), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *Store) introduce(ctx context.Context, part [8]byte, sku string) (*pool, error) {
	if s.ledger == nil {
		opened, err := s.readOpened(ctx, part)
		if err != nil {
			return nil, err
		}
		return s.adopt(part, opened, stock.Mark{}), nil
	}
	terms, mark, err := s.ledger.Pool(ctx, sku)
	if err != nil {
		return nil, fmt.Errorf("read pool from ledger: %w", err)
	}
	if terms.Retired {
		return nil, stock.ErrRetired
	}
	return s.adopt(part, &terms.Pool, mark), nil
}

// adopt makes the handle of a pool that is known to exist.
func (s *Store) adopt(part [8]byte, opened *stock.Pool, mark stock.Mark) *pool {
	p := &pool{part: part, opened: opened, keys: keysOf(s.opts.Prefix, part), mark: mark, saved: mark}
	p.queue = coalesce.New(func(ctx context.Context, batch []*coalesce.Call[ask, answer]) {
		s.flight(ctx, p, batch)
	}, &coalesce.Options{
		MaxBatch: s.opts.MaxBatch, MaxQueue: s.opts.MaxQueue, Flights: s.opts.Flights, Timeout: s.opts.Timeout,
		Link: func() *coalesce.Link { return s.runner.Link(p.keys...) },
	})
	actual, _ := s.pools.LoadOrStore(part, p)
	s.strange.forget(part)
	return actual.(*pool)
}
