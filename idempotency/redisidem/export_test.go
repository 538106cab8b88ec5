package redisidem

import (
	"fmt"
	"strings"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/internal/redisscript"
)

// KeyOf lets tests damage a record.
func (s *Store) KeyOf(id idempotency.ClaimID) string { return s.recordKey(id) }

// Mutate makes the store run scripts in which a guard is missing: each text of
// edits, which stands once in claim.lua or end.lua or in both by record.lua, is
// replaced by the one that follows it.
func Mutate(s *Store, edits ...string) error {
	for i := 0; i < len(edits); i += 2 {
		found := strings.Count(recordSource+claimSource+endSource, edits[i])
		if found != 1 {
			return fmt.Errorf("the scripts hold %q %d times, want once", edits[i], found)
		}
	}
	edit := strings.NewReplacer(edits...)
	s.claims.script = redisscript.New("claim without a guard", edit.Replace(recordSource+claimSource))
	s.ends.script = redisscript.New("end without a guard", edit.Replace(recordSource+endSource))
	return nil
}
