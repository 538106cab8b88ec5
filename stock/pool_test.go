package stock_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/firstcome/firstcome/stock"
)

func TestAPoolsDefaultsAreFilledInAndItsTimesAreWholeMilliseconds(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_789_012, time.UTC)
	p, err := stock.Pool{SKU: "ticket", Total: 1, Opens: at}.Normalize()
	if err != nil || p.Hold != stock.DefaultHold || !p.Opens.Equal(at.Truncate(time.Millisecond)) {
		t.Fatalf("got %+v, %v", p, err)
	}
}

func TestAPoolThatCannotBeSoldIsRefusedByTheNameOfItsField(t *testing.T) {
	now := time.Now()
	for field, p := range map[string]stock.Pool{
		"SKU":    {Total: 1},
		"Total":  {SKU: "a", Total: stock.MaxQuantity + 1},
		"Limit":  {SKU: "a", Total: 1, Limit: -1},
		"Hold":   {SKU: "a", Total: 1, Hold: time.Microsecond},
		"Closes": {SKU: "a", Total: 1, Opens: now, Closes: now},
	} {
		if _, err := p.Normalize(); !errors.Is(err, stock.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestTypedErrorsAreTheirSentinels(t *testing.T) {
	for want, err := range map[error]error{
		stock.ErrAllHeld:  &stock.AllHeldError{RetryAfter: time.Second},
		stock.ErrLimit:    &stock.LimitError{Remaining: 1},
		stock.ErrMismatch: &stock.MismatchError{Field: "sku"},
		stock.ErrNotOpen:  &stock.NotOpenError{RetryAfter: time.Second},
	} {
		if !errors.Is(err, want) || errors.Is(err, stock.ErrSoldOut) {
			t.Errorf("%v is not %v alone", err, want)
		}
	}
}
