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
	seq   int64
	epoch int64
	now   time.Time
	rest  []any
}

// call runs a pool script in a trip of its own, shared is false, or together
// with other goroutines' calls. A fenced pool is looked up in the ledger once:
// another process may have rebuilt it.
func (s *Store) call(ctx context.Context, p *pool, shared bool, script *redisscript.Script, args ...any) (reply, error) {
	for try := 0; ; try++ {
		mark := p.current()
		head := []any{mark.Epoch, mark.Seq, s.ledgerFlag(), s.journalBound()}
		run := s.runner.RunNow
		if shared {
			run = s.runner.Run
		}
		raw, err := run(ctx, script, p.keys, append(head, args...)...)
		if err != nil {
			return reply{}, unknown(script.String(), err)
		}
		r, err := s.read(p, raw)
		if !errors.Is(err, stock.ErrFenced) || try > 0 || !s.refence(ctx, p, mark.Epoch) {
			return r, err
		}
	}
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
	case "version":
		return reply{}, fmt.Errorf("redisstock: the pool's format is version %v, this build knows 1", list[1])
	case "ledger":
		return reply{}, errors.New("redisstock: the pool was opened with a ledger and this store has none, or the other way round")
	default:
		return reply{}, fmt.Errorf("redisstock: unexpected reply %q", status)
	}
}

func (p *pool) current() stock.Mark {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mark
}

// saw raises the mark to what a server answered. Two answers may cross on the
// way, so a lower seq of the same epoch changes nothing.
func (p *pool) saw(m stock.Mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.Epoch > p.mark.Epoch || m.Epoch == p.mark.Epoch && m.Seq > p.mark.Seq {
		p.mark = m
	}
}

// fencePause is how often a fenced pool asks the ledger about a new epoch.
const fencePause = 50 * time.Millisecond

// refence reads the ledger's epoch and reports whether it is newer than the
// one that a call was refused with, so that the call is worth repeating. If
// not, Run is told that the pool wants a rebuild.
func (s *Store) refence(ctx context.Context, p *pool, used int64) bool {
	if s.ledger == nil {
		return false
	}
	if p.current().Epoch > used {
		return true // another call has learnt it meanwhile
	}
	if time.Now().UnixMilli()-p.lastask.Load() < fencePause.Milliseconds() {
		return false
	}
	_, _, _ = p.fences.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Timeout)
		defer cancel()
		_, mark, err := s.ledger.Pool(ctx, p.sku)
		p.lastask.Store(time.Now().UnixMilli())
		if err == nil {
			p.saw(mark)
		}
		return nil, nil
	})
	if p.current().Epoch > used {
		return true
	}
	select {
	case s.fenced <- p:
	default: // Run has enough to do, and fenced pools come again
	}
	return false
}

// unknown wraps an error whose call may have taken effect. An answer of the
// server (wrong type, out of memory, read only) is a refusal before the first
// write and stays as it is.
func unknown(step string, err error) error {
	var answer redis.Error
	switch {
	case errors.Is(err, coalesce.ErrFull):
		return fmt.Errorf("%s: %w", step, stock.ErrBusy)
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
