package house_test

import (
	"fmt"
	"slices"
	"strings"
)

// module is the import path of the whole.
const module = "github.com/firstcome/firstcome"

// interfaces are the packages that say what is promised. They know nothing of
// those who keep it, nor of each other.
var interfaces = []string{"middleware", "idempotency", "ratelimit", "stock", "lock", "cache", "outbox", "worker"}

// outside lists what an interface package may import beside the standard
// library; "" is for all of them. A client of a server is never in it.
var outside = map[string][]string{
	"": {
		"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes",
		"go.opentelemetry.io/otel/metric", "go.opentelemetry.io/otel/propagation", "go.opentelemetry.io/otel/trace",
	},
	"middleware": {"github.com/felixge/httpsnoop", "github.com/dunglas/httpsfv", "github.com/go-chi/chi/v5/middleware"},
	"outbox":     {"github.com/ThreeDotsLabs/watermill/message"},
	"worker":     {"github.com/ThreeDotsLabs/watermill/message"},
}

// testOnly is what must never reach a user's binary: only tests import it, and
// programs that are themselves for trying (examples, and what internal/testenv
// holds).
var testOnly = []string{
	module + "/internal/testenv", module + "/internal/faulty",
	"testing", "github.com/alicebob/miniredis/v2", "github.com/twmb/franz-go/pkg/kfake",
	"github.com/pressly/goose/v3", "go.uber.org/goleak",
}

// suiteOnly is what a conformance suite may import in addition, and no other
// package of the library.
var suiteOnly = []string{"testing", "pgregory.net/rapid", "github.com/anishathalye/porcupine", "go.uber.org/goleak"}

// graph is the imports of the non-test files of each package.
type graph map[string][]string

// violations returns the imports that break a rule, each as a sentence.
func violations(g graph) []string {
	var found []string
	for pkg, imports := range g {
		for _, imported := range imports {
			if rule := broken(pkg, imported); rule != "" {
				found = append(found, fmt.Sprintf("%s imports %s: %s", short(pkg), short(imported), rule))
			}
		}
	}
	slices.Sort(found)
	return found
}

// broken returns the rule that an import breaks, or nothing.
func broken(importer, imported string) string {
	from, to := short(importer), short(imported)
	ours := to != imported // a path is shortened only within the module
	example, fxmodule := within(from, "examples"), within(from, "fxmodule")
	switch {
	case within(imported, "go.uber.org/fx") && !fxmodule && !example:
		return "only fxmodule and the examples know Fx"
	case ours && within(to, "examples") && !example, ours && within(to, "fxmodule") && !fxmodule && !example:
		return "nothing points back at the examples and fxmodule"
	case ours && within(to, "internal") && example:
		return "an example shows what a user can write, and to users internal packages are closed"
	}
	if !example && !within(from, "internal/testenv") {
		if isSuite(from) {
			if ours && slices.Contains(testOnly, imported) {
				return "a suite is for authors of drivers elsewhere, who have no part in our internals"
			}
		} else if slices.ContainsFunc(append(testOnly, suiteOnly...), func(p string) bool { return within(imported, p) }) {
			return "only tests may import it"
		}
	}
	if ours && isSuite(to) {
		return "only tests may import a suite"
	}
	switch {
	case from == ".":
		if ours {
			return "the root documents; it imports none of its parts"
		}
	case slices.Contains(interfaces, from):
		return brokenByInterface(from, imported)
	case parent(from) != "":
		if ours && to != parent(from) && !within(to, "internal") {
			return "a driver knows its parent and internal packages"
		}
	case within(from, "internal"):
		if ours && !within(to, "internal") {
			return "internal packages serve the others and know none of them"
		}
	case fxmodule, example:
	default:
		return "a new top-level package: give it a rule here, and a line in the design"
	}
	return ""
}

func brokenByInterface(from, imported string) string {
	to := short(imported)
	switch {
	case to != imported && slices.Contains(interfaces, to):
		if from != "middleware" {
			return "interface packages do not know each other"
		}
	case to != imported:
		if !within(to, "internal") {
			return "an interface package knows no driver"
		}
	case !standard(imported) && !slices.Contains(outside[""], imported) && !slices.Contains(outside[from], imported):
		return "not among what this interface package may import from outside"
	}
	return ""
}

// short cuts the module's path off; the module's root becomes ".".
func short(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

// within reports whether a path is dir or below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// parent returns the interface package that a driver belongs to, or "".
func parent(path string) string {
	top, _, below := strings.Cut(path, "/")
	if below && slices.Contains(interfaces, top) {
		return top
	}
	return ""
}

// isSuite reports whether a package is a conformance suite, such as
// stock/stocktest.
func isSuite(path string) bool { return parent(path) != "" && strings.HasSuffix(path, "test") }

// standard reports whether a path is of the standard library: no dot in its
// first element.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
