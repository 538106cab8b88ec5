package redisidem

import (
	_ "embed"

	"github.com/firstcome/firstcome/internal/redisscript"
)

var (
	//go:embed scripts/record.lua
	recordSource string
	//go:embed scripts/claim.lua
	claimSource string
	//go:embed scripts/end.lua
	endSource string

	claimScript = redisscript.New("idempotency.claim", recordSource+claimSource)
	// What ends a claim must get through when memory has run out: refusing it
	// would turn a finished operation into an unknown one.
	endScript = redisscript.New("idempotency.end", recordSource+endSource, "allow-oom")
)
