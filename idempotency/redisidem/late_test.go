package redisidem_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/redisidem"
	"github.com/firstcome/firstcome/internal/testenv"
)

// stragglers is a dialer whose connections die now and then with a script call
// in their buffers, which reaches the server later all the same.
type stragglers struct {
	under sync.WaitGroup // way, they are

	mu     sync.Mutex
	random *rand.Rand
	share  float64 // of the calls
	most   int     // are late; 0 for any number
	count  int
}

func (s *stragglers) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	inner, err := d.DialContext(ctx, network, addr)
	return &dying{Conn: inner, stragglers: s}, err
}

// strikes returns for how long a call is on its way.
func (s *stragglers) strikes(request []byte) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Contains(request, []byte("evalsha")) || s.random.Float64() >= s.share || s.most > 0 && s.count == s.most {
		return 0, false
	}
	s.count++
	return time.Duration(s.random.Int64N(int64(30 * time.Millisecond))), true
}

// strike makes the next calls late, as many as may be.
func (s *stragglers) strike() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.share, s.count = 1, 0
}

// calm lets all further calls pass, and waits for those that are late.
func (s *stragglers) calm() int {
	s.mu.Lock()
	s.share = 0
	n := s.count
	s.mu.Unlock()
	s.under.Wait()
	return n
}

type dying struct {
	net.Conn
	*stragglers
	dead bool // of one goroutine at a time, as a connection of a client's pool is
}

func (c *dying) Write(p []byte) (int, error) {
	if c.dead {
		return len(p), nil
	}
	delay, strikes := c.strikes(p)
	if !strikes {
		return c.Conn.Write(p)
	}
	c.dead = true
	request := bytes.Clone(p)
	c.under.Go(func() {
		time.Sleep(delay)
		_ = c.Conn.SetDeadline(time.Now().Add(patience))
		if _, err := c.Conn.Write(request); err == nil {
			_, _ = c.Conn.Read(make([]byte, 1)) // it has landed
		}
		_ = c.Conn.Close()
	})
	return len(p), nil
}

func (c *dying) Read(p []byte) (int, error) {
	if c.dead {
		return 0, os.ErrDeadlineExceeded // at once: the test need not wait for it
	}
	return c.Conn.Read(p)
}

func (c *dying) Close() error {
	if c.dead {
		return nil
	}
	return c.Conn.Close()
}

func (c *dying) SetDeadline(t time.Time) error {
	if c.dead {
		return nil
	}
	return c.Conn.SetDeadline(t)
}

func (c *dying) SetReadDeadline(t time.Time) error {
	if c.dead {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *dying) SetWriteDeadline(t time.Time) error {
	if c.dead {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// step is one call of the store for a key, by the number of its attempt's token.
type step struct {
	kind  byte // c claim, d done, f release, w withdrawal, u unknown, x extend
	token int
	rerun bool
}

// heard is its answer.
type heard struct {
	status  idempotency.Status
	attempt int
	stale   bool
	any     bool // not known
}

// key is one key's state in the model. Leases don't end in it.
type key struct {
	state   byte // 0 absent, r, d, f, u as in the record
	past    bool // an earlier attempt ended unknown
	attempt int
	token   int
	ended   uint64 // a bit of each token
}

func (k *key) over(t int) bool { return t == k.token || k.ended&(1<<t) != 0 }

func (k *key) take(s step) heard {
	if s.kind == 'c' {
		return k.claim(s)
	}
	return heard{stale: !k.end(s)}
}

func (k *key) claim(s step) heard {
	switch {
	case k.state == 'r' && k.token == s.token:
		return heard{status: idempotency.Claimed, attempt: k.attempt}
	case k.state == 'd':
		return heard{status: idempotency.Done}
	case k.state == 'r':
		k.ended |= 1 << s.token
		return heard{status: idempotency.Running}
	case k.state == 'u' && !s.rerun:
		if k.token != s.token {
			k.ended |= 1 << s.token
		}
		return heard{status: idempotency.Unknown}
	case k.state != 0 && k.over(s.token):
		return heard{status: idempotency.Ended}
	}
	if k.state != 0 {
		k.ended |= 1 << k.token
	}
	k.past = k.state == 'u'
	k.state, k.token, k.attempt = 'r', s.token, k.attempt+1
	return heard{status: idempotency.Claimed, attempt: k.attempt}
}

// end reports whether the step was the token's to take.
func (k *key) end(s step) bool {
	to := s.kind
	if to == 'w' {
		to = 'f'
	}
	switch {
	case k.state == 0 && to == 'f':
		k.state, k.token = 'f', s.token
		return true
	case k.token != s.token || k.state == 0:
		if k.state != 'd' && to != 'x' {
			k.ended |= 1 << s.token
		}
		return false
	case to == 'x':
		return k.state == 'r'
	case k.state == to:
		return true
	case k.state != 'r' && k.state != 'u':
		return false
	}
	if s.kind == 'w' && k.state == 'r' {
		k.attempt--
	}
	if k.state = to; to == 'f' && k.past {
		k.state = 'u'
	}
	return true
}

var keyModel = porcupine.Model{
	Init: func() any { return key{} },
	Step: func(state, input, output any) (bool, any) {
		k, want := state.(key), output.(heard)
		got := k.take(input.(step))
		return want.any || got == want, k
	},
	DescribeOperation: func(input, output any) string {
		s := input.(step)
		return fmt.Sprintf("%c of %d: %+v", s.kind, s.token, output)
	},
}

// history is what callers ask of one key and hear.
type history struct {
	t     *testing.T
	store *redisidem.Store
	id    idempotency.ClaimID
	begun time.Time

	mu     sync.Mutex
	tokens []idempotency.Token
	ops    []porcupine.Operation
}

func (h *history) begin() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens = append(h.tokens, idempotency.NewToken(time.Now()))
	return len(h.tokens) - 1
}

func (h *history) token(n int) idempotency.Token {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tokens[n]
}

// do takes a step and records it. One that failed may land at any time. So may
// the first copy of one that hears it is over: it may be over by that.
func (h *history) do(s step) (heard, error) {
	op := porcupine.Operation{Input: s, Call: int64(time.Since(h.begun))}
	out, err := h.send(s)
	op.Return, op.Output = int64(time.Since(h.begun)), out
	late := porcupine.Operation{Input: s, Call: op.Call, Return: math.MaxInt64, Output: heard{any: true}}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.ops = append(h.ops, op)
	}
	if err != nil || out.stale || out.status == idempotency.Ended {
		h.ops = append(h.ops, late)
	}
	return out, err
}

func (h *history) send(s step) (heard, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	terms := idempotency.Terms{Lease: time.Hour, Retention: time.Hour, Linger: time.Hour}
	if s.kind == 'c' {
		rec, err := h.store.Claim(ctx, idempotency.ClaimRequest{ID: h.id, Token: h.token(s.token), Terms: terms, Rerun: s.rerun})
		out := heard{status: rec.Status}
		if rec.Status == idempotency.Claimed {
			out.attempt = rec.Attempt
		}
		return out, err
	}
	holder := idempotency.Holder{ID: h.id, Token: h.token(s.token), Attempt: 1, Started: h.begun}
	var err error
	if s.kind == 'x' {
		err = h.store.Extend(ctx, holder, terms)
	} else {
		outcome := map[byte]idempotency.Outcome{
			'd': idempotency.OutcomeDone, 'f': idempotency.OutcomeReleased, 'w': idempotency.OutcomeReleased, 'u': idempotency.OutcomeUnknown,
		}[s.kind]
		if s.kind == 'w' {
			holder.Attempt = 0
		}
		err = h.store.Settle(ctx, holder, idempotency.Settlement{
			Outcome: outcome, Retention: time.Hour, UnknownRetention: time.Hour, Linger: time.Hour,
		})
	}
	stale := errors.Is(err, idempotency.ErrStale)
	if stale {
		err = nil
	}
	return heard{stale: stale}, err
}

// insist takes a step until it is answered.
func (h *history) insist(s step) heard {
	for {
		out, err := h.do(s)
		if err == nil || h.t.Context().Err() != nil {
			return out
		}
	}
}

// attempt claims, and ends what it has got.
func (h *history) attempt(random *rand.Rand) {
	token, rerun := h.begin(), random.IntN(4) > 0
	out, err := h.do(step{kind: 'c', token: token, rerun: rerun})
	if err != nil {
		h.insist(step{kind: 'w', token: token})
		return
	}
	if out.status != idempotency.Claimed {
		return
	}
	if random.IntN(4) == 0 {
		_, _ = h.do(step{kind: 'x', token: token})
	}
	h.insist(step{kind: "ffffffuuud"[random.IntN(10)], token: token})
}

// run lets callers make attempts at one key while calls come late.
func (h *history) run(seed uint64) {
	var callers sync.WaitGroup
	for i := range 3 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 5 { // no more tokens than a record has room for
				h.attempt(random)
			}
		})
	}
	callers.Wait()
}

// explained reports whether one order of single steps explains what they heard.
func (h *history) explained() bool {
	_, _ = h.do(step{kind: 'c', token: h.begin(), rerun: true})
	result := porcupine.CheckOperationsTimeout(keyModel, h.ops, 20*time.Second)
	if result == porcupine.Unknown {
		h.t.Logf("gave up on a history of %d calls", len(h.ops))
	}
	return result != porcupine.Illegal
}

// histories runs n of them at once.
func histories(t *testing.T, seed uint64, n int, edits ...string) (bad []*history) {
	t.Helper()
	var all []*history
	late := &stragglers{random: rand.New(rand.NewPCG(seed, 0)), share: 0.35}
	server, name := testenv.Redis(t), testenv.Name(t)
	var running sync.WaitGroup
	for i := range n {
		// A store each, or they would share few flights.
		client := server.Client(t, func(o *redis.Options) { o.Dialer, o.MaxRetries = late.dial, 1 })
		store, err := redisidem.New(client, &redisidem.Options{Prefix: name})
		if err == nil {
			err = redisidem.Mutate(store, edits...)
		}
		if err != nil {
			t.Fatal(err)
		}
		h := &history{t: t, store: store, begun: time.Now()}
		binary.BigEndian.PutUint64(h.id[:], seed+uint64(i))
		all = append(all, h)
		running.Go(func() { h.run(seed + uint64(i)) })
	}
	running.Wait()
	if struck := late.calm(); struck < n {
		t.Errorf("only %d calls came late", struck)
	}
	for _, h := range all {
		if !h.explained() {
			bad = append(bad, h)
		}
	}
	return bad
}

func TestLostRequest_ThatLandsAfterItsWithdrawalHoldsNothing(t *testing.T) {
	t.Parallel()
	late := &stragglers{random: rand.New(rand.NewPCG(1, 1)), most: 1}
	client := testenv.Redis(t).Client(t, func(o *redis.Options) { o.Dialer, o.MaxRetries = late.dial, -1 })
	keeper := newKeeper(t, client, idempotency.Rerun, idempotency.Options{StoreTimeout: patience})
	warm(t, keeper)
	for i := range 20 {
		late.strike()
		key, runs := fmt.Sprint(i), 0
		if _, err := keeper.Do(t.Context(), "s", key, nil, counted(&runs, "")); !errors.Is(err, idempotency.ErrUnavailable) {
			t.Fatal(err)
		}
		if n := late.calm(); n != 1 {
			t.Fatalf("%d calls came late", n)
		}
		// It has landed, before its withdrawal or after it. The key is free now, or
		// in a moment.
		for runs == 0 {
			_, err := keeper.Do(t.Context(), "s", key, nil, func(_ context.Context, c *idempotency.Claim) ([]byte, error) {
				if runs++; !c.First() {
					t.Error("an attempt that never ran is counted")
				}
				return nil, nil
			})
			if err != nil && !errors.Is(err, idempotency.ErrInFlight) {
				t.Fatal(err)
			}
		}
	}
}

func TestConcurrentHistoriesWithLateCopiesAreLinearizable(t *testing.T) {
	t.Parallel()
	for range 3 {
		seed := rand.Uint64()
		for _, h := range histories(t, seed, 12) {
			t.Errorf("seed %d: no order of single steps explains these %d calls:", seed, len(h.ops))
			for _, op := range h.ops {
				t.Logf("%12v to %12v: %s", time.Duration(op.Call), time.Duration(op.Return), keyModel.DescribeOperation(op.Input, op.Output))
			}
		}
	}
}

func TestConcurrentHistoriesWithLateCopiesShowAMissingGuard(t *testing.T) {
	t.Parallel()
	for _, g := range lateGuards {
		switch g.name {
		case "a claim whose token has ended is answered", "a claim that was refused takes nothing later":
			t.Run(g.name, func(t *testing.T) {
				t.Parallel()
				for range 20 {
					if len(histories(t, rand.Uint64(), 12, g.edits...)) > 0 {
						return
					}
				}
				t.Error("without it nothing is noticed")
			})
		}
	}
}
