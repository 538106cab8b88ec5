package sqlledger

import (
	"bytes"
	"slices"

	"github.com/firstcome/firstcome/stock"
)

func compareIDs(a, b stock.ID) int { return bytes.Compare(a[:], b[:]) }

// sortedIDs returns the IDs once each, in the order in which all callers lock.
func sortedIDs(ids []stock.ID) []stock.ID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids)
}

// padded repeats the last ID until their number is a power of two, so that
// drivers which keep prepared statements meet few different ones. A repeated ID
// changes nothing in the statements that take lists.
func padded(ids []stock.ID) []stock.ID {
	want := 1
	for want < len(ids) {
		want *= 2
	}
	ids = slices.Clip(ids)
	for len(ids) < want {
		ids = append(ids, ids[len(ids)-1])
	}
	return ids
}

// texts returns the IDs as arguments of a statement.
func texts(ids []stock.ID) []any {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id.String()
	}
	return args
}

// poolPart returns how the IDs of a pool begin.
func poolPart(sku string) [8]byte { return stock.NewID(sku, "", [16]byte{}).PoolPart() }

// checkPool refuses IDs of another pool.
func checkPool(sku string, ids []stock.ID) error {
	pool := poolPart(sku)
	for _, id := range ids {
		if id.PoolPart() != pool {
			return &stock.MismatchError{Field: "sku"}
		}
	}
	return nil
}

// poolRange returns IDs between which (the first excluded) lie those of a pool.
func poolRange(sku string) (after, last stock.ID) {
	pool := poolPart(sku)
	n := copy(after[:], pool[:])
	copy(last[:], pool[:])
	for i := n; i < len(last); i++ {
		last[i] = 0xff
	}
	return after, last
}
