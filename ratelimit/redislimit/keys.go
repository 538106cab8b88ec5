package redislimit

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"

	"github.com/firstcome/firstcome/ratelimit"
)

// The version of the bucket's format.
const bucketVersion = "1"

const defaultPrefix = "fc:rl"

// bucketKey is fc:rl:1:{<hash of limit and key>}. The braces are the slot: nobody
// outside chooses it. The name comes with its length, so no two pairs meet; the
// numbers of the limit are in it, so a limit that changes starts anew rather
// than misreading what another wrote.
func (l *Limiter) bucketKey(t *ratelimit.Take) string {
	var text [256]byte
	buf := binary.AppendUvarint(text[:0], uint64(len(t.Limit.Name)))
	buf = append(buf, t.Limit.Name...)
	buf = binary.AppendVarint(buf, t.Limit.Quota)
	buf = binary.AppendVarint(buf, int64(t.Limit.Window))
	buf = binary.AppendVarint(buf, t.Limit.Capacity())
	buf = strconv.AppendBool(buf, t.Limit.Strict)
	buf = append(buf, t.Key...)
	sum := sha256.Sum256(buf)

	var key [128]byte
	out := append(key[:0], l.keyHead...)
	out = base64.RawURLEncoding.AppendEncode(out, sum[:16])
	out = append(out, '}')
	return string(out)
}

// refundKey marks one refund as done, beside its bucket.
func refundKey(bucket string, operation [16]byte) string {
	return bucket + ":" + base64.RawURLEncoding.EncodeToString(operation[:])
}

func keyHead(prefix string) string { return prefix + ":" + bucketVersion + ":{" }

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
