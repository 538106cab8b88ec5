package redisidem_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
	"github.com/firstcome/firstcome/internal/testenv"
)

// TestSameAsTheStoreInMemory takes the same steps, sent again at any time, on
// both.
func TestSameAsTheStoreInMemory(t *testing.T) {
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		store, n := newStore(t, client), byte(0)
		rapid.Check(t, func(rt *rapid.T) {
			n++
			var id idempotency.ClaimID
			copy(id[:], fmt.Sprint(n, testenv.Name(t)))
			client.Del(t.Context(), store.KeyOf(id))
			both := pair{rt: rt, t: t, a: store, b: idemtest.NewMemory(nil), id: id}
			for range 15 { // so many tokens are remembered one by one
				both.tokens = append(both.tokens, idempotency.NewToken(time.Now()))
			}
			for range rapid.IntRange(1, 40).Draw(rt, "steps") {
				both.step()
			}
		})
	})
}

type pair struct {
	rt     *rapid.T
	t      *testing.T
	a, b   idempotency.Store
	id     idempotency.ClaimID
	tokens []idempotency.Token
}

func (p *pair) step() {
	terms := idempotency.Terms{Lease: time.Hour, Retention: time.Hour, Linger: time.Hour}
	token := rapid.SampledFrom(p.tokens).Draw(p.rt, "token")
	print := idempotency.Fingerprint{rapid.ByteRange(0, 1).Draw(p.rt, "payload")}
	switch what := rapid.IntRange(0, 7).Draw(p.rt, "step"); what {
	case 0, 1, 2, 3:
		req := idempotency.ClaimRequest{
			ID: p.id, Token: token, Fingerprint: print, Terms: terms,
			Rerun: rapid.Bool().Draw(p.rt, "rerun"), Look: rapid.Bool().Draw(p.rt, "look"),
		}
		if rapid.Bool().Draw(p.rt, "replace") {
			req.Replace = rapid.SampledFrom(p.tokens).Draw(p.rt, "replaced")
		}
		p.same("claim", p.claim(p.a, req), p.claim(p.b, req))
	case 4:
		h := idempotency.Holder{ID: p.id, Token: token, Fingerprint: print, Attempt: 1, Started: time.UnixMilli(1)}
		p.same("extend", p.a.Extend(p.t.Context(), h, terms), p.b.Extend(p.t.Context(), h, terms))
	default:
		h := idempotency.Holder{
			ID: p.id, Token: token, Fingerprint: print, Attempt: rapid.IntRange(0, 2).Draw(p.rt, "attempt"), Started: time.UnixMilli(1),
		}
		s := idempotency.Settlement{
			Outcome: rapid.SampledFrom([]idempotency.Outcome{
				idempotency.OutcomeReleased, idempotency.OutcomeReleased, idempotency.OutcomeUnknown, idempotency.OutcomeDone, idempotency.OutcomeNotKept,
			}).Draw(p.rt, "outcome"),
			Result: []byte("r"), Retention: time.Hour, UnknownRetention: time.Hour, Linger: time.Hour,
		}
		if s.Outcome != idempotency.OutcomeReleased {
			h.Attempt = max(h.Attempt, 1) // it has run
		}
		p.same("settle", p.a.Settle(p.t.Context(), h, s), p.b.Settle(p.t.Context(), h, s))
	}
}

// claim returns what is heard, as an error to be compared.
func (p *pair) claim(s idempotency.Store, req idempotency.ClaimRequest) error {
	rec, err := s.Claim(p.t.Context(), req)
	if err != nil {
		return err
	}
	return fmt.Errorf("status %d, attempt %d, token %x, result %s", rec.Status, rec.Attempt, rec.Token, rec.Result)
}

func (p *pair) same(step string, a, b error) {
	if errors.Is(a, idempotency.ErrStale) && errors.Is(b, idempotency.ErrStale) {
		return
	}
	if fmt.Sprint(a) != fmt.Sprint(b) {
		p.rt.Fatalf("%s: %v, in memory %v", step, a, b)
	}
}
