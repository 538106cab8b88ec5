package redisstock

import (
	"encoding/hex"

	"github.com/firstcome/firstcome/stock"
)

// keysOf returns a pool's keys: pool, due, journal. The hash tag is a digest,
// so all share a slot that no user text chooses.
func keysOf(prefix string, part [8]byte) []string {
	tag := prefix + ":stock:1:{" + hex.EncodeToString(part[:]) + "}:"
	return []string{tag + "pool", tag + "due", tag + "journal"}
}

// leaseKeyOf returns the key of the lease of a pool's journal, in its slot.
func leaseKeyOf(keys []string) string { return keys[journalKey] + ":lease" }

const (
	poolKey = iota
	dueKey
	journalKey
)

// partOf returns the bytes that name a pool in its IDs and keys.
func partOf(sku string) [8]byte { return stock.NewID(sku, "", [16]byte{}).PoolPart() }
