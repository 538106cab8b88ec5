package testenv

import (
	"os/exec"
	"path/filepath"
)

// find returns the path of a program: the one in PATH, else the last match of
// patterns (so the highest version of those side by side). With
// FIRSTCOME_NO_SERVERS=1 there is none.
func find(program, installedBy string, patterns ...string) (string, error) {
	missing := &missingError{what: program, by: installedBy}
	if noServers() {
		return "", missing
	}
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern)
		if len(matches) > 0 {
			return matches[len(matches)-1], nil
		}
	}
	return "", missing
}
