package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// buyerDigits is the fixed width of a buyer's number, so that a request for
// another buyer is the same bytes with other digits.
const buyerDigits = 8

// purchase is the request of any buyer, formatted once: only the digits of the
// buyer's number change, in the X-Buyer and the Idempotency-Key header. A
// generator that formats requests during the run measures itself.
type purchase struct {
	bytes      []byte
	buyer, key int // where the digits stand
}

// newPurchase formats the request. The name of the run is part of buyers and
// keys: another run against the same shop is another crowd.
func newPurchase(t target, run, sku string) (purchase, error) {
	name, err := json.Marshal(sku)
	if err != nil {
		return purchase{}, fmt.Errorf("-sku: %w", err)
	}
	body := fmt.Sprintf(`{"sku":%s,"quantity":1}`, name)
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s/orders HTTP/1.1\r\nHost: %s\r\n", t.base.EscapedPath(), t.host)
	fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	fmt.Fprintf(&b, "X-Buyer: %s", buyerPrefix(run))
	buyer := b.Len()
	fmt.Fprintf(&b, "%0*d\r\nIdempotency-Key: \"%s-", buyerDigits, 0, run)
	key := b.Len()
	fmt.Fprintf(&b, "%0*d\"\r\n\r\n%s", buyerDigits, 0, body)
	return purchase{bytes: b.Bytes(), buyer: buyer, key: key}, nil
}

// clone gives a connection its own copy to write into.
func (p purchase) clone() purchase {
	p.bytes = bytes.Clone(p.bytes)
	return p
}

// of returns the request of one buyer, valid until the next call.
func (p purchase) of(buyer int) []byte {
	digits(p.bytes[p.buyer:p.buyer+buyerDigits], buyer)
	copy(p.bytes[p.key:p.key+buyerDigits], p.bytes[p.buyer:])
	return p.bytes
}

func digits(dst []byte, n int) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
}

// buyerPrefix and buyerName are what X-Buyer says.
func buyerPrefix(run string) string { return "buyer-" + run + "-" }

func buyerName(run string, buyer int) string {
	return fmt.Sprintf("%s%0*d", buyerPrefix(run), buyerDigits, buyer)
}
