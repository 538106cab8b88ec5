package redisstock

import (
	_ "embed"

	"github.com/firstcome/firstcome/internal/redisscript"
)

var (
	//go:embed scripts/head.lua
	headLua string
	//go:embed scripts/lib.lua
	libLua string
	//go:embed scripts/reserve.lua
	reserveLua string
	//go:embed scripts/reserve_rest.lua
	reserveRestLua string
	//go:embed scripts/change.lua
	changeLua string
	//go:embed scripts/sweep.lua
	sweepLua string
	//go:embed scripts/settle.lua
	settleLua string
	//go:embed scripts/forget.lua
	forgetLua string
	//go:embed scripts/levels.lua
	levelsLua string
	//go:embed scripts/adjust.lua
	adjustLua string
	//go:embed scripts/repair.lua
	repairLua string
	//go:embed scripts/retire.lua
	retireLua string
	//go:embed scripts/drop.lua
	dropLua string
	//go:embed scripts/lease.lua
	leaseLua string
	//go:embed scripts/trim.lua
	trimLua string
	//go:embed scripts/open.lua
	openLua string
	//go:embed scripts/restore.lua
	restoreLua string
)

// What a script reads first, beside terms and counts: nothing, the buyer of its
// seventh argument, or the buyers of all IDs in its tenth.
const (
	noBuyer   = "local name = {'t', 'm'}\n"
	oneBuyer  = "local name = {'t', 'm', ARGV[7]}\n"
	allBuyers = "local name = {'t', 'm'}\n" +
		"for i = 1, tonumber(ARGV[9]) do name[i + 2] = string.sub(ARGV[10], i * 28 - 27, i * 28 - 16) end\n"
)

// sources are the scripts by name; what a pool's scripts begin with is in front.
var sources = map[string]string{
	"reserve": allBuyers + headLua + reserveLua + libLua + reserveRestLua,
	"change":  oneBuyer + headLua + libLua + changeLua,
	"sweep":   noBuyer + headLua + libLua + sweepLua,
	"settle":  noBuyer + headLua + libLua + settleLua,
	"forget":  noBuyer + headLua + libLua + forgetLua,
	"levels":  noBuyer + headLua + levelsLua,
	"adjust":  noBuyer + headLua + libLua + adjustLua,
	"repair":  oneBuyer + headLua + libLua + repairLua,
	"retire":  noBuyer + headLua + libLua + retireLua,
	"drop":    dropLua,
	"lease":   leaseLua,
	"trim":    trimLua,
	"open":    openLua,
	"restore": restoreLua,
}

// scripts are what a store runs.
type scripts struct {
	reserve, change, sweep, settle, forget, levels, adjust, repair, retire, drop, lease, trim, open, restore *redisscript.Script
}

// standard is what every store runs but those of tests that prove that a guard
// in a script is needed. Those that release units may run when memory is
// short: that is when they are needed most.
var standard = scripts{
	reserve: script("reserve"),
	change:  script("change", "allow-oom"),
	sweep:   script("sweep", "allow-oom"),
	settle:  script("settle", "allow-oom"),
	forget:  script("forget", "allow-oom"),
	levels:  script("levels", "no-writes"),
	adjust:  script("adjust", "allow-oom"),
	repair:  script("repair", "allow-oom"),
	retire:  script("retire", "allow-oom"),
	drop:    script("drop", "allow-oom"),
	lease:   script("lease", "allow-oom"),
	trim:    script("trim", "allow-oom"),
	open:    script("open"),
	restore: script("restore"),
}

func script(name string, flags ...string) *redisscript.Script {
	return redisscript.New(name, sources[name], flags...)
}
