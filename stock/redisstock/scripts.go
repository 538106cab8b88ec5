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

// Those that release units may run when memory is short: that is when they
// are needed most.
var (
	reserveScript = redisscript.New("reserve", poolLua+reserveLua)
	changeScript  = redisscript.New("change", poolLua+changeLua, "allow-oom")
	sweepScript   = redisscript.New("sweep", poolLua+sweepLua, "allow-oom")
	settleScript  = redisscript.New("settle", poolLua+settleLua, "allow-oom")
	levelsScript  = redisscript.New("levels", poolLua+levelsLua, "no-writes")
	openScript    = redisscript.New("open", openLua)
	restoreScript = redisscript.New("restore", restoreLua)
)
