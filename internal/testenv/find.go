package testenv

import (
	"os/exec"
	"path/filepath"
)

// find returns the path of a program: the one in PATH, else the last match of
// patterns (so the highest version of those side by side).
func find(program, installedBy string, patterns ...string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern)
		if len(matches) > 0 {
			return matches[len(matches)-1], nil
		}
	}
	return "", &missingError{what: program, by: installedBy}
}
