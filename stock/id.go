package stock

import (
	"crypto/sha256"
	"database/sql/driver"
	"encoding/base32"
	"fmt"
	"strings"
	"sync/atomic"
)

// ID names one reservation from the first attempt to the last event. It is
// made by the caller, before the attempt, so that a repeat finds what the
// first try did. It has three parts: the pool, the buyer, and the claim (the
// attempt, as [github.com/firstcome/firstcome/idempotency.ClaimID]). The first
// two say where the reservation lives; no index is needed to find it.
//
// Its text form has 58 characters of 0-9 and a-v and sorts as its bytes do.
type ID [idSize]byte

const (
	poolPart  = 8
	buyerPart = 12
	claimPart = 16
	idSize    = poolPart + buyerPart + claimPart
)

var idText = base32.HexEncoding.WithPadding(base32.NoPadding)

// idTextSize is the length of the text form, which is in lower case since some
// SQL collations fold case.
const idTextSize = 58

// NewID makes the ID of one claim by a buyer on a pool. The same three always
// give the same ID; another buyer or pool never does.
func NewID(pool, buyer string, claim [16]byte) ID {
	var id ID
	p, b := poolDigest(pool), digest("buyer", buyer)
	copy(id[:poolPart], p[:])
	copy(id[poolPart:poolPart+buyerPart], b[:])
	copy(id[poolPart+buyerPart:], claim[:])
	return id
}

// knownPool is a pool's part of its IDs.
type knownPool struct {
	name string
	part [poolPart]byte
}

// knownPools remembers some pools' digests: a process sells from few, and asks
// for each at every call. A place is taken over by the last name that falls on it.
var knownPools [64]atomic.Pointer[knownPool]

func poolDigest(name string) [poolPart]byte {
	sum := len(name)
	for i := max(0, len(name)-4); i < len(name); i++ { // names of one sale differ there
		sum = sum*31 + int(name[i])
	}
	place := &knownPools[uint(sum)%uint(len(knownPools))]
	if known := place.Load(); known != nil && known.name == name {
		return known.part
	}
	full := digest("pool", name)
	part := [poolPart]byte(full[:poolPart])
	if len(name) <= MaxNameLength {
		place.Store(&knownPool{strings.Clone(name), part})
	}
	return part
}

// digest keeps user text out of keys: any text becomes 32 even bytes. It does
// not allocate for names of usual length.
func digest(kind, text string) [sha256.Size]byte {
	buf := make([]byte, 0, 128)
	buf = append(buf, "firstcome/stock/"...)
	buf = append(buf, kind...)
	buf = append(buf, 0)
	buf = append(buf, text...)
	return sha256.Sum256(buf)
}

// ParseID reads the text form.
func ParseID(text string) (ID, error) {
	var id ID
	if err := id.UnmarshalText([]byte(text)); err != nil {
		return ID{}, err
	}
	return id, nil
}

// PoolPart returns the bytes that name the pool; a store makes its keys of them.
func (id ID) PoolPart() [8]byte { return [poolPart]byte(id[:poolPart]) }

// BuyerPart returns the bytes that name the buyer.
func (id ID) BuyerPart() [12]byte { return [buyerPart]byte(id[poolPart : poolPart+buyerPart]) }

// ClaimPart returns the bytes that name the attempt.
func (id ID) ClaimPart() [16]byte { return [claimPart]byte(id[poolPart+buyerPart:]) }

// Late returns the ID under which a reservation is made again whose payment came
// after its hold had ended, where the pool has a ledger: reserve the same units
// anew under it, then place and sell them in one transaction. It is the same
// each time, so a repeat finds what the first try did.
func (id ID) Late() ID {
	claim := digest("late", string(id[poolPart+buyerPart:]))
	copy(id[poolPart+buyerPart:], claim[:])
	return id
}

// IsZero reports whether id was never set.
func (id ID) IsZero() bool { return id == ID{} }

// String returns the text form.
func (id ID) String() string {
	text, _ := id.AppendText(make([]byte, 0, idTextSize))
	return string(text)
}

// AppendText appends the text form to b.
func (id ID) AppendText(b []byte) ([]byte, error) {
	n := len(b)
	b = idText.AppendEncode(b, id[:])
	for i := n; i < len(b); i++ {
		if b[i] >= 'A' {
			b[i] += 'a' - 'A'
		}
	}
	return b, nil
}

// MarshalText returns the text form, also for JSON.
func (id ID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText reads the text form and refuses any other spelling of it.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != idTextSize {
		return invalid("reservation ID has %d characters, want %d", len(text), idTextSize)
	}
	upper := make([]byte, idTextSize)
	for i, c := range text {
		if c >= 'A' && c <= 'Z' {
			return invalid("reservation ID is written in lower case")
		}
		if c >= 'a' && c <= 'v' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	var out ID
	if _, err := idText.Decode(out[:], upper); err != nil {
		return invalid("reservation ID: %v", err)
	}
	if back, _ := out.MarshalText(); string(back) != string(text) {
		return invalid("reservation ID is not in its canonical form")
	}
	*id = out
	return nil
}

// Value stores the text form in SQL.
func (id ID) Value() (driver.Value, error) { return id.String(), nil }

// Scan reads the text form from SQL.
func (id *ID) Scan(src any) error {
	switch v := src.(type) {
	case string:
		return id.UnmarshalText([]byte(v))
	case []byte:
		return id.UnmarshalText(v)
	default:
		return fmt.Errorf("stock: can't read a reservation ID from %T", src)
	}
}
