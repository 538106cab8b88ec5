package redisstock

import (
	_ "embed"

	"github.com/firstcome/firstcome/internal/redisscript"
)

var (
	//go:embed scripts/pool.lua
	poolLua string
	//go:embed scripts/reserve.lua
	reserveLua string
	//go:embed scripts/change.lua
	changeLua string
	//go:embed scripts/sweep.lua
	sweepLua string
	//go:embed scripts/settle.lua
	settleLua string
	//go:embed scripts/levels.lua
	levelsLua string
	//go:embed scripts/open.lua
	openLua string
	//go:embed scripts/restore.lua
	restoreLua string
)

// scripts are what a store runs.
type scripts struct {
	reserve, change, sweep, settle, levels, open, restore *redisscript.Script
}

// standard is what every store runs but those of tests that prove that a guard
// in a script is needed. Those that release units may run when memory is
// short: that is when they are needed most.
var standard = scripts{
	reserve: redisscript.New("reserve", poolLua+reserveLua),
	change:  redisscript.New("change", poolLua+changeLua, "allow-oom"),
	sweep:   redisscript.New("sweep", poolLua+sweepLua, "allow-oom"),
	settle:  redisscript.New("settle", poolLua+settleLua, "allow-oom"),
	levels:  redisscript.New("levels", poolLua+levelsLua, "no-writes"),
	open:    redisscript.New("open", openLua),
	restore: redisscript.New("restore", restoreLua),
}
