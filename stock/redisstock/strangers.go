package redisstock

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// strangers remembers for a second which pools do not exist or are over, so
// that a flood of made-up or old SKUs is no flood of questions to the ledger.
// Its size is bounded.
type strangers struct {
	mu   sync.Mutex
	seen map[[8]byte]stranger
}

type stranger struct {
	at  time.Time
	err error
}

func (n *strangers) recently(part [8]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s, ok := n.seen[part]; ok && time.Since(s.at) < time.Second {
		return s.err
	}
	return nil
}

func (n *strangers) add(part [8]byte, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen == nil || len(n.seen) >= 4096 {
		n.seen = make(map[[8]byte]stranger)
	}
	n.seen[part] = stranger{time.Now(), err}
}

func (n *strangers) forget(part [8]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.seen, part)
}

// directory finds the pool that an ID names in the ledger's list. The list is
// read at most once in a second, whoever asks for what.
type directory struct {
	mu    sync.Mutex
	at    time.Time
	names map[[8]byte]string
}

func (d *directory) find(ctx context.Context, ledger stock.Ledger, part [8]byte) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.at) >= time.Second {
		list, err := ledger.Pools(ctx)
		if err != nil {
			return "", fmt.Errorf("list pools: %w", err)
		}
		d.names = make(map[[8]byte]string, len(list))
		for _, sku := range list {
			d.names[partOf(sku)] = sku
		}
		d.at = time.Now()
	}
	sku, ok := d.names[part]
	if !ok {
		return "", stock.ErrUnknownSKU
	}
	return sku, nil
}
