package testenv

import (
	"fmt"
	"os"
)

// The variables that say what is to be expected of the machine.
const (
	requireVariable = "FIRSTCOME_REQUIRE_SERVERS"
	noneVariable    = "FIRSTCOME_NO_SERVERS"
)

// RequireServers reports whether a missing server fails a test
// (FIRSTCOME_REQUIRE_SERVERS=1) instead of skipping it.
func RequireServers() bool { return os.Getenv(requireVariable) == "1" }

// noServers reports whether no server is to be found, wherever it is installed
// (FIRSTCOME_NO_SERVERS=1): the machine is one with Go alone.
func noServers() bool { return os.Getenv(noneVariable) == "1" }

// checkDemands refuses variables that say nothing, or the opposite of each
// other: whoever sets one must not believe in vain that it holds.
func checkDemands() error {
	for _, name := range []string{requireVariable, noneVariable} {
		switch value := os.Getenv(name); value {
		case "", "0", "1":
		default:
			return fmt.Errorf("%s is %q, which is neither 1 nor 0", name, value)
		}
	}
	if RequireServers() && noServers() {
		return fmt.Errorf("%s=1 and %s=1 contradict each other", requireVariable, noneVariable)
	}
	return nil
}
