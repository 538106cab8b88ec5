package redisstock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/coalesce"
	"github.com/firstcome/firstcome/internal/redisscript"
	"github.com/firstcome/firstcome/stock"
)

// reply is a script's answer after {"ok", epoch, seq, now}.
type reply struct {
	seq      int64
	epoch    int64
	now      time.Time
	replicas int // that have it; 0 where that was not asked
	rest     []any
}

// call runs a pool script in a trip of its own, shared is false, or together
// with other goroutines' calls. A fenced pool is looked up in the ledger once:
// another process may have rebuilt it. A good reply has at least rest values.
func (s *Store) call(ctx context.Context, p *pool, shared bool, script *redisscript.Script, rest int, args ...any) (reply, error) {
	for try := 0; ; try++ {
		mark := p.current()
		head := make([]any, 5, 5+len(args))
		head[0], head[1], head[2], head[3], head[4] = mark.Epoch, mark.Seq, s.ledgerFlag(), s.journalBound(), s.mustWrite()
		raw, replicas, err := s.send(ctx, p, shared, script, append(head, args...))
		if err != nil {
			return reply{}, unknown(script.String(), err)
		}
		r, err := s.read(p, raw)
		if err == nil && len(r.rest) < rest {
			return reply{}, errShort
		}
		r.replicas = replicas
		if !errors.Is(err, stock.ErrFenced) || try > 0 {
			return r, err
		}
		if err := s.refence(ctx, p, mark.Epoch); err != nil {
			return reply{}, err
		}
	}
}

var errShort = errors.New("redisstock: short reply")

func (s *Store) send(ctx context.Context, p *pool, shared bool, script *redisscript.Script, args []any) (any, int, error) {
	switch {
	case s.opts.Replicas > 0 && script != s.scripts.levels:
		return s.runner.RunReplicated(ctx, s.opts.Replicas, s.opts.ReplicaWait, script, p.keys, args...)
	case shared:
		raw, err := s.runner.Run(ctx, script, p.keys, args...)
		return raw, 0, err
	default:
		raw, err := s.runner.RunNow(ctx, script, p.keys, args...)
		return raw, 0, err
	}
}

// mustWrite makes a script that changes nothing write all the same. WAIT counts
// the replicas that have what this connection wrote, and a repeat on another
// connection has written nothing that could be counted.
func (s *Store) mustWrite() string {
	if s.opts.Replicas > 0 {
		return "1"
	}
	return "0"
}
func (s *Store) ledgerFlag() string {
	if s.ledger != nil {
		return "1"
	}
	return "0"
}

func (s *Store) journalBound() int64 {
	if s.journal.mode == JournalOff.mode {
		return -1
	}
	return s.journal.bound
}

// read takes the head off a script's answer and learns from it.
func (s *Store) read(p *pool, raw any) (reply, error) {
	list, _ := raw.([]any)
	if len(list) == 0 {
		return reply{}, fmt.Errorf("redisstock: unexpected reply %T", raw)
	}
	switch status, _ := list[0].(string); status {
	case "ok":
		if len(list) < 4 {
			return reply{}, errors.New("redisstock: short reply")
		}
		r := reply{epoch: toInt(list[1]), seq: toInt(list[2]), now: time.UnixMilli(toInt(list[3])), rest: list[4:]}
		p.saw(stock.Mark{Epoch: r.epoch, Seq: r.seq})
		return r, nil
	case "missing":
		if s.ledger == nil && p.current().Epoch == 0 {
			return reply{}, stock.ErrUnknownSKU
		}
		return reply{}, stock.ErrFenced
	case "fenced":
		return reply{}, stock.ErrFenced
	case "retired":
		return reply{}, stock.ErrRetired
	case "version":
		return reply{}, wrongVersion(list)
	case "ledger":
		return reply{}, errors.New("redisstock: the pool was opened with a ledger and this store has none, or the other way round")
	default:
		return reply{}, fmt.Errorf("redisstock: unexpected reply %q", status)
	}
}

func wrongVersion(list []any) error {
	return fmt.Errorf("redisstock: the pool's format is version %v, this build knows %s", list[len(list)-1], formatVersion)
}

func (p *pool) current() stock.Mark {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mark
}

// saw raises the mark to what a server answered. Two answers may cross on the
// way, so a lower seq of the same epoch changes nothing. What was refused in an
// older epoch is void: the pool was rebuilt.
func (p *pool) saw(m stock.Mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.Epoch > p.mark.Epoch {
		p.reopen()
	}
	if before(p.mark, m) {
		p.mark = m
	}
}

// fencePause is how often a fenced pool asks the ledger about a new epoch.
const fencePause = 50 * time.Millisecond

// refence reads the ledger's epoch and returns nil if it is newer than the one
// that a call was refused with, so that the call is worth repeating. If not,
// Run is told that the pool wants a rebuild, and the refusal is returned.
func (s *Store) refence(ctx context.Context, p *pool, used int64) error {
	if s.ledger == nil {
		return stock.ErrFenced
	}
	if p.current().Epoch > used {
		return nil // another call has learnt it meanwhile
	}
	if last := p.asked.Load(); last == nil || time.Since(*last) >= fencePause {
		_, _, _ = p.fences.Do("", func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Timeout)
			defer cancel()
			terms, mark, err := s.ledger.Pool(ctx, p.opened.SKU)
			now := time.Now() // with its monotonic reading: the wall clock may be set back
			p.asked.Store(&now)
			if err == nil {
				p.saw(mark)
				p.retired.Store(terms.Retired)
			}
			return nil, nil
		})
	}
	switch {
	case p.retired.Load():
		return stock.ErrRetired
	case p.current().Epoch > used:
		return nil
	}
	select {
	case s.fenced <- p:
	default: // Run has enough to do, and fenced pools come again
	}
	return stock.ErrFenced
}

// unknown wraps an error whose call may have taken effect. An answer of the
// server (wrong type, out of memory, read only) is a refusal before the first
// write and stays as it is.
func unknown(step string, err error) error {
	var answer redis.Error
	switch {
	case errors.Is(err, coalesce.ErrFull):
		return fmt.Errorf("%s: %w", step, stock.ErrBusy)
	case errors.Is(err, redisscript.ErrAway) && errors.Is(err, coalesce.ErrNotSent):
		return fmt.Errorf("%s: %w: %w", step, stock.ErrBusy, err)
	case errors.Is(err, coalesce.ErrNotSent):
		return fmt.Errorf("redisstock: %s: %w", step, err)
	case errors.As(err, &answer) && !redis.HasErrorPrefix(err, "UNKILLABLE"):
		return fmt.Errorf("redisstock: %s: %w", step, err)
	default:
		return fmt.Errorf("%s: %w: %w", step, stock.ErrUnknown, err)
	}
}

func toInt(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case string:
		n, _ := strconv.ParseInt(v, 10, 64)
		return n
	default:
		return 0
	}
}

func toString(v any) string {
	t, _ := v.(string)
	return t
}
