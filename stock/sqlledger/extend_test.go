package sqlledger

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/firstcome/firstcome/stock"
)

func (e *env) extendOne(ctx context.Context, id stock.ID, until time.Time) error {
	return e.in(ctx, func(tx *sql.Tx) error { return e.Extend(ctx, tx, id, until) })
}

func TestExtend_MovesTheEndOfAHeldOrderAndNeverEarlier(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		e.openFair(t, "fair", 100)
		for sku, id := range map[string]stock.ID{"ticket": e.placed(t, "ticket", 1, 1)[0], "fair": e.placedBasket(t, "fair", line("a", 1))} {
			was := e.found(t, sku, id).Expires
			for _, by := range []time.Duration{time.Minute, time.Minute, time.Second, -time.Hour, 90*time.Second + 999*time.Microsecond} {
				wantErr(t, "extend", e.extendOne(ctx, id, was.Add(by)), nil)
				want := was.Add(max(time.Minute, by.Truncate(time.Millisecond)))
				if got := e.found(t, sku, id).Expires; !got.Equal(want) {
					t.Errorf("by %v: the end is %v, want %v", by, got, want)
				}
			}
			wantErr(t, "zero", e.extendOne(ctx, id, time.Time{}), stock.ErrInvalid)
			wantErr(t, "sell", e.sellOne(ctx, id), nil)
		}
	})
}

func TestExtend_EachEndOfAnOrderHasItsOwnAnswer(t *testing.T) {
	each(t, nil, func(t *testing.T, e *env) {
		ctx := t.Context()
		e.open(t, "ticket", 100)
		ids := e.placed(t, "ticket", 4, 1)
		voided, missing := e.hold("ticket", "ada", 1).ID, e.hold("ticket", "ada", 1).ID
		wantErr(t, "cancel", e.cancelOne(ctx, ids[0]), nil)
		wantErr(t, "sell", e.sellOne(ctx, ids[1]), nil)
		wantErr(t, "sell", e.sellOne(ctx, ids[2]), nil)
		wantErr(t, "return", e.returnOne(ctx, ids[2]), nil)
		if _, err := e.Expire(ctx, "ticket", []stock.ID{ids[3], voided}); err != nil {
			t.Fatal(err)
		}
		later := time.UnixMilli(1_950_000_000_000)
		err := e.in(ctx, func(tx *sql.Tx) error { // and commit
			for id, want := range map[stock.ID]error{
				ids[0]: stock.ErrCancelled, ids[1]: stock.ErrConfirmed, ids[2]: stock.ErrTooLate,
				ids[3]: stock.ErrExpired, voided: stock.ErrExpired, missing: stock.ErrNotFound,
			} {
				wantErr(t, "extend", e.Extend(ctx, tx, id, later), want)
			}
			return nil
		})
		wantErr(t, "commit", err, nil)
		for _, id := range ids {
			if got := e.found(t, "ticket", id); !got.Expires.Before(later) {
				t.Errorf("%v was extended", got.State)
			}
		}
	})
}
