package testenv

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Mutant is the code with one guard taken out, and the test that misses it.
type Mutant struct {
	Name    string
	File    string // below the folder of the test
	Guard   string // the text in it, which stands there once
	Without string // what stands in its place
	Package string // of the test; default: the test's own
	Test    string // for go test -run
}

// MustBeMissed runs the mutant's test, in a go test of its own, and fails where
// that passes, or tested nothing. It takes some seconds, so it is skipped unless
// FIRSTCOME_MUTANTS is 1. A server that is missing fails it: a test that is
// skipped misses nothing.
func (m Mutant) MustBeMissed(t *testing.T) {
	t.Helper()
	if os.Getenv("FIRSTCOME_MUTANTS") != "1" {
		t.Skip("compiles the package once per guard: set FIRSTCOME_MUTANTS=1")
	}
	t.Run(m.Name, func(t *testing.T) {
		pkg := m.Package
		if pkg == "" {
			pkg = "."
		}
		cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", m.overlay(t), "-timeout", "90s", "-run", m.Test, pkg)
		cmd.Env = append(os.Environ(), requireVariable+"=1")
		text, err := cmd.CombinedOutput()
		out := string(text)
		switch {
		case err == nil:
			t.Errorf("nobody missed it:\n%s", out)
		case strings.Contains(out, "servers-install"), strings.Contains(out, "contradict each other"):
			t.Errorf("nothing was tested:\n%s", out)
		case strings.Contains(out, "[build failed]"), strings.Contains(out, "[setup failed]"):
			t.Errorf("does not compile:\n%s", out)
		}
	})
}

// overlay writes the mutant and the file by which go test takes it for the code.
func (m Mutant) overlay(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(m.File)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.Guard); n != 1 {
		t.Fatalf("%s holds %q %d times, want once", m.File, m.Guard, n)
	}
	dir := t.TempDir()
	mutant, overlay := filepath.Join(dir, filepath.Base(path)), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{mutant: strings.Replace(string(source), m.Guard, m.Without, 1), overlay: string(list)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return overlay
}
