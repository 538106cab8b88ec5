package idempotency

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// hasher makes keyed hashes. Its states are pooled: keying HMAC anew costs more
// than hashing a key.
type hasher struct{ pool sync.Pool }

type hashState struct {
	mac hash.Hash
	buf []byte
}

func newHasher(key []byte) *hasher {
	own := append([]byte(nil), key...)
	return &hasher{pool: sync.Pool{New: func() any {
		return &hashState{mac: hmac.New(sha256.New, own), buf: make([]byte, 0, 256)}
	}}}
}

// sum hashes the domain, each of the parts and the payload, all with their
// lengths, so that no two lists run together.
func (h *hasher) sum(domain byte, payload []byte, parts ...string) [16]byte {
	s := h.pool.Get().(*hashState)
	buf := append(s.buf[:0], domain)
	for _, part := range parts {
		buf = binary.AppendUvarint(buf, uint64(len(part)))
		buf = append(buf, part...)
	}
	buf = binary.AppendUvarint(buf, uint64(len(payload)))
	s.mac.Reset()
	_, _ = s.mac.Write(buf)
	_, _ = s.mac.Write(payload)
	buf = s.mac.Sum(buf[:0])
	out := [16]byte(buf)
	s.buf = buf
	h.pool.Put(s)
	return out
}

// The domains keep a hash of one kind from being one of the other.
const (
	domainClaim       = 'c'
	domainFingerprint = 'f'
)
