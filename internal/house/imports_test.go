package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

func TestImports_KeepTheRules(t *testing.T) {
	t.Parallel()
	g := load(t)
	if len(g) < 10 {
		t.Fatalf("only %d packages were found", len(g))
	}
	for _, violation := range violations(g) {
		t.Error(violation)
	}
}

// load asks the go command for the imports of the module's packages.
func load(t *testing.T) graph {
	t.Helper()
	// With -e, so that a package that does not compile is the compiler's to
	// report, not ours.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	g := make(graph)
	for packages := json.NewDecoder(bytes.NewReader(text)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			return g
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		g[p.ImportPath] = p.Imports
	}
}

// The checker itself, on made-up imports.

func TestRules_RefuseWhatBreaksThem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to, rule string }{
		{"stock", module + "/outbox", "each other"},
		{"outbox", module + "/middleware", "each other"},
		{"stock", module + "/stock/redisstock", "no driver"},
		{"middleware", module + "/stock/redisstock", "no driver"},
		{"stock", module + "/fxmodule", "points back"},
		{"stock", "github.com/redis/go-redis/v9", "from outside"},
		{"stock", "github.com/ThreeDotsLabs/watermill/message", "from outside"},
		{"outbox", "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka", "from outside"},
		{"stock", "go.opentelemetry.io/otel/sdk/metric", "from outside"},
		{"stock/redisstock", module + "/stock/sqlledger", "its parent"},
		{"stock/redisstock", module + "/idempotency", "its parent"},
		{"outbox/journal", module + "/stock", "its parent"},
		{"stock/redisstock", "go.uber.org/fx", "know Fx"},
		{"internal/coalesce", "go.uber.org/fx/fxevent", "know Fx"},
		{"internal/coalesce", module + "/stock", "know none of them"},
		{"fxmodule", module + "/examples/shop", "points back"},
		{"examples/shop", module + "/internal/coalesce", "a user can write"},
		{"worker", module + "/examples/shop", "points back"},
		{"internal/coalesce", module + "/examples/shop", "points back"},
		{"stock/redisstock", module + "/internal/testenv", "only tests"},
		{"fxmodule", module + "/internal/faulty", "only tests"},
		{"fxmodule", "github.com/alicebob/miniredis/v2", "only tests"},
		{"fxmodule", "github.com/alicebob/miniredis/v2/server", "only tests"},
		{"stock/sqlledger", "github.com/pressly/goose/v3", "only tests"},
		{"worker/kafkasub", "github.com/twmb/franz-go/pkg/kfake", "only tests"},
		{"stock", "testing", "only tests"},
		{"stock/redisstock", "pgregory.net/rapid", "only tests"},
		{"stock/redisstock", module + "/stock/stocktest", "a suite"},
		{"examples/shop", module + "/stock/stocktest", "a suite"},
		{"stock/stocktest", module + "/internal/testenv", "no part in our internals"},
		{"stock/stocktest", module + "/stock/redisstock", "its parent"},
		{".", module + "/stock", "documents"},
		{"helpers", "fmt", "new top-level"},
	} {
		importer := module + "/" + c.from
		if c.from == "." {
			importer = module
		}
		found := violations(graph{importer: {c.to}})
		if len(found) != 1 || !strings.Contains(found[0], c.rule) {
			t.Errorf("%s imports %s: got %q, want a sentence with %q", c.from, c.to, found, c.rule)
		}
	}
}

func TestRules_AllowWhatTheDesignDraws(t *testing.T) {
	t.Parallel()
	g := graph{
		module:                              {},
		module + "/stock":                   {"context", "go.opentelemetry.io/otel/metric", module + "/internal/coalesce"},
		module + "/middleware":              {"net/http", module + "/idempotency", module + "/ratelimit", module + "/stock", "github.com/felixge/httpsnoop"},
		module + "/outbox":                  {"github.com/ThreeDotsLabs/watermill/message"},
		module + "/stock/redisstock":        {module + "/stock", module + "/internal/redisscript", "github.com/redis/go-redis/v9"},
		module + "/stock/stocktest":         {"testing", module + "/stock", "pgregory.net/rapid", "github.com/anishathalye/porcupine"},
		module + "/internal/redisscript":    {module + "/internal/coalesce", "github.com/redis/go-redis/v9"},
		module + "/internal/testenv":        {"testing", "github.com/alicebob/miniredis/v2", "go.uber.org/goleak"},
		module + "/internal/testenv/cmd/up": {module + "/internal/testenv"},
		module + "/fxmodule":                {"go.uber.org/fx", module + "/stock/redisstock", module + "/middleware"},
		module + "/examples/shop":           {"go.uber.org/fx", module + "/fxmodule", "github.com/alicebob/miniredis/v2", "github.com/pressly/goose/v3"},
		module + "/examples/stampede":       {module + "/examples/shop"},
	}
	for _, violation := range violations(g) {
		t.Error(violation)
	}
}
