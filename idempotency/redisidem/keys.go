package redisidem

import (
	"encoding/base64"

	"github.com/firstcome/firstcome/idempotency"
)

// The version of the record's format. A record with another is refused.
const recordVersion = "1"

const defaultPrefix = "fc:idem"

// recordKey is fc:idem:1:{<claim ID in base64url>}. The braces are the slot:
// the ID is a keyed hash, so nobody outside chooses it.
func (s *Store) recordKey(id idempotency.ClaimID) string {
	buf := make([]byte, 0, len(s.keyHead)+24)
	buf = append(buf, s.keyHead...)
	buf = base64.RawURLEncoding.AppendEncode(buf, id[:])
	buf = append(buf, '}')
	return string(buf)
}

func keyHead(prefix string) string { return prefix + ":" + recordVersion + ":{" }

// validPrefix keeps a prefix from moving the slot, and readable.
func validPrefix(prefix string) bool {
	if prefix == "" || len(prefix) > 64 {
		return false
	}
	for _, c := range []byte(prefix) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == ':', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
