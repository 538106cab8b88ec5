package journal

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// shortestPoll is the gap between looks while events keep coming.
	shortestPoll = 10 * time.Millisecond
	// longestProbe is the longest gap between tries while something is away.
	longestProbe = 2 * time.Second
	// mostEntries is how many entries are read at once.
	mostEntries = 128
	// logAgain is how often a trouble that lasts is logged.
	logAgain = time.Minute
)

// pool is one pool in one run. Its goroutine does one thing at a time: lease,
// read, publish, trim.
type pool struct {
	*session
	name string
	log  *slog.Logger
	quit context.CancelFunc
	wake chan struct{}
	gone atomic.Bool

	halted atomic.Bool  // by a refusal
	oldest atomic.Int64 // unix ms of the oldest event not acknowledged; 0: none

	entries  int           // to read at the next look
	gap      time.Duration // to the next look where nothing comes
	leased   bool
	leaseDue time.Time
	fails    int // rounds in a row that ended in trouble
	loggedAt time.Time
	acked    map[place]bool // acknowledged and not yet trimmed
	trimmed  mark           // the last event that this run has trimmed
}

func (p *pool) run(ctx context.Context) {
	defer p.giveBack()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for deaf := false; ; {
		wake := p.wake
		if deaf {
			wake = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}
		if ctx.Err() != nil {
			return
		}
		var pause time.Duration
		pause, deaf = p.turn(ctx)
		timer.Reset(pause)
	}
}

// turn is a round, when there is room for one. It says how long to wait for the
// next, and whether a wake-up changes that.
func (p *pool) turn(ctx context.Context) (pause time.Duration, deaf bool) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return 0, true
	}
	if mine, err := p.lease(ctx); err != nil {
		return p.trouble(ctx, "lease", err), true
	} else if !mine {
		p.oldest.Store(0)
		p.halted.Store(false)
		return jitter(p.opts.LeaseTTL / 4), true
	}
	entries, err := p.read(ctx)
	if err != nil {
		return p.trouble(ctx, "read", err), true
	}
	page := p.open(entries)
	p.tell(page)
	sent := p.send(ctx, page)
	if err := p.trim(page); err != nil && sent == nil {
		return p.trouble(ctx, "trim", err), true
	}
	p.tell(page)
	if sent != nil {
		return p.refused(ctx, sent), true
	}
	p.well(ctx)
	return p.next(page), false
}

// next is when to look again after all went well.
func (p *pool) next(page *page) time.Duration {
	if len(page.items) == 0 {
		p.gap = min(2*p.gap, p.opts.PollInterval)
		return jitter(p.gap)
	}
	p.gap = min(shortestPoll, p.opts.PollInterval)
	full := len(page.entries) >= p.entries
	p.entries = max(1, min(p.opts.PageEvents*len(page.entries)/len(page.items), mostEntries))
	if full {
		return 0
	}
	return p.gap
}

// lease sees to it that this run has the pool, where there are leases.
func (p *pool) lease(ctx context.Context) (bool, error) {
	if p.leaser == nil || p.leased && time.Now().Before(p.leaseDue) {
		return true, nil
	}
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.opts.StoreTimeout)
	defer cancel()
	held, err := p.leaser.LeaseJournal(ctx, p.name, p.session.name, p.opts.LeaseTTL)
	p.leased, p.leaseDue = held && err == nil, asked.Add(p.opts.LeaseTTL/3)
	return p.leased, err
}

func (p *pool) giveBack() {
	if !p.leased {
		return
	}
	ctx, cancel := context.WithTimeout(p.hard, p.opts.StoreTimeout)
	defer cancel()
	if _, err := p.leaser.LeaseJournal(ctx, p.name, p.session.name, 0); err != nil {
		p.log.WarnContext(ctx, "lease not given back; it ends by itself", "error", err)
	}
}

func (p *pool) read(ctx context.Context) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, p.opts.StoreTimeout)
	defer cancel()
	return p.reader.ReadJournal(ctx, p.name, p.entries)
}

// trim forgets what was acknowledged from the front on. It names each entry: the
// store may have failed over since the page was read, and what stands in front of
// one then was perhaps sent by nobody. It ends orderly though Run's ctx has ended.
func (p *pool) trim(page *page) error {
	whole := page.whole()
	if whole > 0 {
		ctx, cancel := context.WithTimeout(p.hard, p.opts.StoreTimeout)
		defer cancel()
		if err := p.reader.TrimJournal(ctx, p.name, page.positions(whole)...); err != nil {
			p.acked = page.acked(0)
			return err
		}
		if last, ok := page.last(whole); ok {
			p.trimmed = last
		}
	}
	p.acked = page.acked(whole)
	return nil
}

// tell keeps what the gauges show.
func (p *pool) tell(page *page) {
	p.oldest.Store(0)
	if left := page.left(); len(left) > 0 {
		p.oldest.Store(left[0].event.At.UnixMilli())
	}
}

// refused ends a round in which not all was acknowledged.
func (p *pool) refused(ctx context.Context, err error) (pause time.Duration) {
	var refusal *refusalError
	if !errors.As(err, &refusal) {
		return p.trouble(ctx, "publish", err)
	}
	p.halted.Store(true)
	p.fails++
	e := refusal.event
	p.log.ErrorContext(ctx, "event refused; its pool is stopped, nothing is dropped, and it is tried again",
		"topic", p.topic, "epoch", e.Epoch, "seq", e.Seq, "kind", e.Kind, "again_in", p.opts.RefusedRetry, "error", refusal.err)
	if p.opts.OnRefused != nil {
		p.opts.OnRefused(Refusal{Pool: p.name, Epoch: e.Epoch, Seq: e.Seq, Err: refusal.err})
	}
	return p.opts.RefusedRetry
}

// trouble ends a round that will be tried again soon. The end of Run's ctx is none.
func (p *pool) trouble(ctx context.Context, step string, err error) (pause time.Duration) {
	if ctx.Err() != nil {
		return 0
	}
	p.fails++
	if step != "publish" {
		p.tel.failed(step)
	}
	if now := time.Now(); p.fails == 1 || now.Sub(p.loggedAt) >= logAgain {
		p.loggedAt = now
		p.log.ErrorContext(ctx, "journal waits; nothing is lost or trimmed", "step", step, "failures", p.fails, "error", err)
	}
	return jitter(min(25*time.Millisecond<<min(p.fails, 10), longestProbe))
}

// well ends a round without trouble.
func (p *pool) well(ctx context.Context) {
	if p.fails > 0 {
		p.log.InfoContext(ctx, "journal goes on", "failures", p.fails)
	}
	p.fails = 0
	p.halted.Store(false)
}

// jitter keeps the relays of a fleet from looking all at the same moment.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/4+1) }
