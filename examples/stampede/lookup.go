package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	lookers     = 16 // orders looked up at once
	lookupTries = 4
)

// lookup is what the shop says of the very orders that buyers hold. Sums can
// agree by accident, one order lost here and one made twice there; this cannot.
type lookup struct {
	Held      int      `json:"held"`
	Confirmed int      `json:"confirmed"`
	Cancelled int      `json:"cancelled"`
	Wrong     int      `json:"wrong"` // missing, another's, unreadable
	Examples  []string `json:"examples,omitempty"`
}

// order is what GET /orders/{id} says.
type order struct {
	ID       string `json:"order_id"`
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
	Status   string `json:"status"`
}

// lookUp asks for every order as the buyer who was told of it.
func (a *auditor) lookUp(ctx context.Context, run, sku string, orders map[int]string) lookup {
	type holding struct {
		buyer int
		order string
	}
	work := make(chan holding)
	var sum lookup
	var mu sync.Mutex
	var all sync.WaitGroup
	for range min(lookers, len(orders)) {
		all.Go(func() {
			for h := range work {
				status, err := a.order(ctx, buyerName(run, h.buyer), h.order, sku)
				mu.Lock()
				sum.add(buyerName(run, h.buyer), h.order, status, err)
				mu.Unlock()
			}
		})
	}
	for buyer, id := range orders {
		work <- holding{buyer, id}
	}
	close(work)
	all.Wait()
	return sum
}

func (l *lookup) add(buyer, id, status string, err error) {
	switch {
	case err == nil && status == "held":
		l.Held++
		return
	case err == nil && status == "confirmed":
		l.Confirmed++
		return
	case err == nil && status == "cancelled":
		l.Cancelled++
		return
	case err == nil:
		err = fmt.Errorf("status %.40q", status)
	}
	l.Wrong++
	if len(l.Examples) < maxExamples {
		l.Examples = append(l.Examples, fmt.Sprintf("order %s of %s: %v", id, buyer, err))
	}
}

// order asks for one order, again if the shop has no time just now.
func (a *auditor) order(ctx context.Context, buyer, id, sku string) (status string, err error) {
	for try := range lookupTries {
		if try > 0 {
			select {
			case <-time.After(time.Duration(try) * 250 * time.Millisecond):
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		var o order
		var code int
		code, err = a.get(ctx, "/orders/"+url.PathEscape(id), buyer, &o)
		switch {
		case err != nil:
		case code == http.StatusTooManyRequests || code >= 500:
			err = fmt.Errorf("answer %d", code)
		case code != http.StatusOK:
			return "", fmt.Errorf("answer %d", code)
		case o.ID != id || o.SKU != sku || o.Quantity != 1:
			return "", fmt.Errorf("the shop has %d of %q under %q", o.Quantity, o.SKU, o.ID)
		default:
			return o.Status, nil
		}
	}
	return "", err
}
