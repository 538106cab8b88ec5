package redisscript

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/firstcome/firstcome/internal/outage"
)

// ErrAway answers calls to a server that has not answered several times in a
// row, at once and without sending anything, until a probe in the background
// finds it back. It is an outage.
var ErrAway = outage.New("redisscript: the server does not answer")

const (
	failuresToOpen = 3                      // in a row, with no answer since any of them left
	firstPause     = 50 * time.Millisecond  // before the first probes; each later pause is twice as long,
	longestPause   = 500 * time.Millisecond // up to this, and drawn from half to one and a half times of it
	firstProbe     = 250 * time.Millisecond // bounds the first probes; later ones have twice as long,
	longestProbe   = time.Second            // up to this
	firstProbes    = 4                      // at once, and twice as many each time,
	mostProbes     = 8                      // up to this
	probesFor      = 30 * time.Second       // after the last call; then the next call is the probe
)

// breaker keeps calls from a server that is away. What counts is that nothing
// comes back: a failure that left before the last answer came says nothing, so
// a few dead connections among living ones, or a slow server, open nothing.
//
// From the first failure on it probes, several at once: where it was a dead
// connection that failed, its idle neighbours may be dead as well, and a probe
// that meets one has the client drop it before a call does.
type breaker struct {
	name    string
	born    time.Time             // instants count from here, on the monotonic clock
	spell   atomic.Pointer[spell] // nil while the server is there
	answer  atomic.Int64          // the instant of the last answer
	probing atomic.Int32          // probes that are out

	mu sync.Mutex
}

// spell is a time in which a server does not answer.
type spell struct {
	began time.Time

	refusing atomic.Pointer[error] // what calls are told; nil: they are sent
	called   atomic.Int64          // the instant when somebody last asked
	idle     atomic.Bool           // nobody probes: the next call goes through, and is the probe

	failures int          // guarded by breaker.mu
	log      *slog.Logger // set with refusing

	// These belong to the probes that are planned or under way.
	probe func(context.Context) error
	pause time.Duration
	limit time.Duration
	crew  int
}

var away, _ = otel.Meter("github.com/firstcome/firstcome/internal/redisscript").Int64UpDownCounter("firstcome.redis.away",
	metric.WithDescription("Redis servers that do not answer, as this process sees it: their calls are refused at once. One that nobody has asked for 30 s is none."))

func (b *breaker) init(name string) {
	b.name, b.born = name, time.Now()
	b.answer.Store(-1)
}

func (b *breaker) instant(t time.Time) int64 { return int64(t.Sub(b.born)) }

// refuse returns why nothing shall be sent now, nil if it may.
func (b *breaker) refuse() error {
	s := b.spell.Load()
	if s == nil {
		return nil
	}
	s.called.Store(b.instant(time.Now()))
	if err := s.refusing.Load(); err != nil && !s.idle.Load() {
		return *err
	}
	return nil
}

// answered notes that the server has answered.
func (b *breaker) answered(now time.Time) {
	b.answer.Store(b.instant(now))
	s := b.spell.Load()
	if s == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spell.CompareAndSwap(s, nil) && s.refusing.Load() != nil {
		if !s.idle.Load() {
			away.Add(context.Background(), -1)
		}
		s.log.Info("redis answers again", "node", b.name, "away_for", now.Sub(s.began))
	}
}

// failed notes that what left then was not answered. probe asks the server the
// least there is.
func (b *breaker) failed(left time.Time, cause error, log *slog.Logger, probe func(context.Context) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.answer.Load() >= b.instant(left) {
		return
	}
	now := time.Now()
	s := b.spell.Load()
	if s == nil {
		s = &spell{began: now}
		s.called.Store(b.instant(now))
		s.begin(probe)
		b.spell.Store(s)
		b.plan(s)
	} else if s.idle.CompareAndSwap(true, false) {
		if s.refusing.Load() != nil {
			away.Add(context.Background(), 1)
		}
		s.begin(probe)
		b.plan(s)
	}
	s.failures++
	if s.failures < failuresToOpen || s.refusing.Load() != nil {
		return
	}
	s.log = log
	err := fmt.Errorf("%w: %w", ErrAway, cause)
	s.refusing.Store(&err)
	away.Add(context.Background(), 1)
	log.Warn("redis does not answer; calls are refused until it does", "node", b.name, "error", cause)
}

func (s *spell) begin(probe func(context.Context) error) {
	s.probe, s.pause, s.limit, s.crew = probe, firstPause, firstProbe, firstProbes
}

// plan has the next probe made after a pause. Between probes there is a timer
// and no goroutine.
func (b *breaker) plan(s *spell) {
	pause := s.pause/2 + rand.N(s.pause)
	s.pause = min(2*s.pause, longestPause)
	time.AfterFunc(pause, func() { b.look(s) })
}

// look probes the server with as many calls at once as its turn has.
func (b *breaker) look(s *spell) {
	if b.spell.Load() != s {
		return
	}
	if b.instant(time.Now())-s.called.Load() > int64(probesFor) {
		b.rest(s)
		return
	}
	b.ask(s)
	s.crew, s.limit = min(2*s.crew, mostProbes), min(2*s.limit, longestProbe)
	if b.spell.Load() == s {
		b.plan(s)
	}
}

// rest ends the probing of a server that nobody asks for any more: its client may
// be closed, or its slots have gone to another.
func (b *breaker) rest(s *spell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spell.Load() != s {
		return
	}
	s.probe = nil // it holds the client
	s.idle.Store(true)
	if s.refusing.Load() != nil {
		away.Add(context.Background(), -1)
	}
}

// ask makes one round of probes, and is back when one was answered, all have
// failed or their time is over. Those of a client that does not obey contexts
// go on, and count against the next round.
func (b *breaker) ask(s *spell) {
	ctx, cancel := context.WithTimeout(context.Background(), s.limit)
	defer cancel()
	var crew sync.WaitGroup
	for range min(s.crew, mostProbes-int(b.probing.Load())) {
		b.probing.Add(1)
		crew.Go(func() {
			defer b.probing.Add(-1)
			if s.probe(ctx) == nil {
				b.answered(time.Now())
				cancel()
			}
		})
	}
	go func() { crew.Wait(); cancel() }()
	<-ctx.Done()
}
