package testenv

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFreePort_IsFreeAndNeverGivenTwice(t *testing.T) {
	t.Parallel()
	given := make(map[int]bool)
	for range 50 {
		port := FreePort(t)
		if given[port] {
			t.Errorf("port %d was given twice", port)
		}
		given[port] = true
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil {
			t.Errorf("port %d: %v", port, err)
			continue
		}
		_ = listener.Close()
	}
}

func TestName_IsUniqueAndPlain(t *testing.T) {
	t.Parallel()
	first, second := Name(t), Name(t)
	if first == second {
		t.Errorf("%s twice", first)
	}
	if !strings.HasSuffix(first, "-testnameisuniqueandplain") {
		t.Errorf("name = %s", first)
	}
}

func TestMissing_SaysWhatToInstall(t *testing.T) {
	t.Parallel()
	_, err := find("firstcome-no-such-server", "apt-get install nothing")
	if err == nil || !strings.Contains(err.Error(), "make servers-install") || !strings.Contains(err.Error(), "apt-get install nothing") {
		t.Errorf("err = %v", err)
	}
}

func TestMissing_SkipsUnlessServersAreRequired(t *testing.T) {
	t.Setenv(noneVariable, "")
	for required, want := range map[string]string{"": "skipped", "1": "failed"} {
		t.Setenv(requireVariable, required)
		outcome := &outcome{TB: t}
		func() {
			defer func() { _ = recover() }()
			need(outcome, &missingError{what: "redis-server", by: "apt-get install redis-server"})
		}()
		if outcome.was != want {
			t.Errorf("with FIRSTCOME_REQUIRE_SERVERS=%q the test %s, want %s", required, outcome.was, want)
		}
	}
}

func TestMissing_EveryServerIsWhereNoneIsToBeFound(t *testing.T) {
	t.Setenv(requireVariable, "")
	t.Setenv(noneVariable, "1")
	t.Setenv("FIRSTCOME_SERVERS", t.TempDir())
	jars := filepath.Join(os.Getenv("FIRSTCOME_SERVERS"), "kafka_2.13-"+KafkaVersion+".jar")
	if err := os.WriteFile(jars, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]func() (*process, error){
		"redis":       func() (*process, error) { return startRedis("redis", nil) },
		"redis clock": func() (*process, error) { return (&RedisClock{}).start(nil) },
		"postgres":    func() (*process, error) { return startPostgres(nil) },
		"mariadb":     func() (*process, error) { return startMariaDB(nil) },
		"kafka":       func() (*process, error) { return startKafka(nil, useKafkaArchive) },
		"kafka's jars": func() (*process, error) {
			_, err := kafkaJars()
			return nil, err
		},
		"the go command": func() (*process, error) { // which is in PATH, as this test runs
			_, err := find("go", "nothing")
			return nil, err
		},
	} {
		if _, err := start(); !isMissing(err) {
			t.Errorf("%s: %v, want it missing", name, err)
		}
	}
}

func isMissing(err error) bool {
	_, missing := errors.AsType[*missingError](err)
	return missing
}

func TestMissing_VariablesThatSayNothingOrContradictAreRefused(t *testing.T) {
	for _, c := range []struct{ required, none, want string }{
		{"", "", ""}, {"1", "0", ""}, {"0", "1", ""}, {"", "1", ""},
		{"1", "1", "contradict"}, {"yes", "", requireVariable}, {"", "true", noneVariable},
	} {
		t.Setenv(requireVariable, c.required)
		t.Setenv(noneVariable, c.none)
		err := checkDemands()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%q and %s=%q: %v, want %q", requireVariable, c.required, noneVariable, c.none, err, c.want)
		}
	}
}

func TestMissing_LineAtTheEndCountsTestsAndNamesEachServerOnce(t *testing.T) {
	t.Parallel()
	var a absence
	var line strings.Builder
	a.report(&line)
	if line.String() != "" {
		t.Errorf("nothing was missing: %q", line.String())
	}
	for _, what := range []string{"redis-server", "java", "redis-server"} {
		a.note(t, &missingError{what: what})
	}
	a.note(&outcome{}, &missingError{what: "postgres"}) // a program is no test
	a.report(&line)
	if want := SkippedPrefix + "3 (java, redis-server)\n"; line.String() != want {
		t.Errorf("line %q, want %q", line.String(), want)
	}
}

// outcome notes how a test ended instead of ending it.
type outcome struct {
	TB
	was string
}

func (o *outcome) Skipf(string, ...any)  { o.was = "skipped"; panic(o.was) }
func (o *outcome) Fatalf(string, ...any) { o.was = "failed"; panic(o.was) }

func TestSweep_RemovesOnlyFoldersOfTheDead(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	long := time.Now().Add(-time.Hour)
	newFolder := func(locked bool, made time.Time) string {
		path, err := os.MkdirTemp("", folderPattern) //nolint:usetesting // sweep goes by this name
		if err != nil {
			t.Fatal(err)
		}
		lock, err := os.Create(filepath.Join(path, lockName))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = lock.Close() })
		if locked {
			if err := flock(lock); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(lock.Name(), made, made); err != nil {
			t.Fatal(err)
		}
		return path
	}
	alive, young, dead := newFolder(true, long), newFolder(false, time.Now()), newFolder(false, long)
	sweep()
	for path, want := range map[string]bool{alive: true, young: true, dead: false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %t", path, err, want)
		}
	}
}

func TestOutput_KeepsTheLastLinesAndFindsThemByNumber(t *testing.T) {
	t.Parallel()
	out := newOutput()
	for range maxLines {
		out.add("old")
	}
	from := out.end()
	out.add("new")
	if line, found, next, _ := out.find("new", from); !found || line != "new" || next != from+1 {
		t.Errorf("found %q %t, next %d; want line %d", line, found, next, from)
	}
	if len(out.lines) > maxLines {
		t.Errorf("%d lines are kept", len(out.lines))
	}
	if out.tail(2) != "old\nnew" {
		t.Errorf("tail = %q", out.tail(2))
	}
}
