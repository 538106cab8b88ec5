package redisidem

import "github.com/firstcome/firstcome/idempotency"

// KeyOf lets tests damage a record.
func (s *Store) KeyOf(id idempotency.ClaimID) string { return s.recordKey(id) }
