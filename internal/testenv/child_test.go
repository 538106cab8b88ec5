package testenv_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firstcome/firstcome/internal/testenv"
)

// beParent starts servers, tells their process IDs, and waits to be killed.
func beParent() error {
	program := testenv.NewProgram("parent")
	redis := testenv.NewRedis(program)
	postgres := testenv.NewPostgres(program)
	program.Logf("servers %d %d", redis.PID(), postgres.PID())
	time.Sleep(time.Minute)
	return nil
}

func TestServers_DieWithAProcessThatIsKilled(t *testing.T) {
	t.Parallel()
	testenv.Redis(t)
	testenv.Postgres(t) // or be skipped
	// Not by Start, which would kill the whole tree.
	cmd := testenv.Command(t, "parent")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	var pids []int
	for len(pids) == 0 && lines.Scan() {
		if _, list, found := strings.Cut(lines.Text(), "servers "); found {
			for _, field := range strings.Fields(list) {
				pid, _ := strconv.Atoi(field)
				pids = append(pids, pid)
			}
		}
	}
	if len(pids) != 2 {
		t.Fatalf("heard of %d servers, want 2", len(pids))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for _, pid := range pids {
		deadline := time.Now().Add(10 * time.Second)
		for !gone(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d has outlived its parent", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// gone reports whether a process no longer runs: it may still wait to be
// reaped by whoever inherited it.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestProcess_RoleOfTheTestBinaryCanBeWatchedStoppedAndRestarted(t *testing.T) {
	t.Parallel()
	process := testenv.Start(t, testenv.Command(t, "greeter", "GREETED=world"))
	if line := process.WaitLine("hello"); line != "hello world" {
		t.Errorf("line = %q", line)
	}
	before := process.PID()
	process.Stop()
	process.Cont()
	process.Kill()
	if !gone(before) {
		t.Error("it is still there")
	}
	process.Kill() // twice does no harm
	process.Restart()
	process.WaitLine("hello") // of this run, not of the last
	if process.PID() == before {
		t.Error("the same process")
	}
	if n := strings.Count(process.Output(), "hello world"); n != 2 {
		t.Errorf("%d greetings in the output of both runs", n)
	}
}

func TestProcess_WaitAndTerminateTellHowItEnded(t *testing.T) {
	t.Parallel()
	if err := testenv.Start(t, exec.Command("true")).Wait(10 * time.Second); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := testenv.Start(t, exec.Command("false")).Wait(10 * time.Second); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("err = %v, want status 1", err)
	}
	if err := testenv.Start(t, exec.Command("sleep", "60")).Terminate(10 * time.Second); err == nil {
		t.Error("sleep does not survive SIGTERM, yet ended with status 0")
	}
	if err := testenv.Start(t, exec.Command("sleep", "60")).Wait(20 * time.Millisecond); err == nil {
		t.Error("sleep ended at once")
	}
}

func TestProcess_WaitLineEndsWhenTheProcessDoes(t *testing.T) {
	t.Parallel()
	watcher := &recorder{T: t}
	process := testenv.Start(watcher, exec.Command("echo", "last words"))
	watcher.run(func() { process.WaitLine("never said") })
	if !strings.Contains(watcher.fatal, "last words") {
		t.Errorf("message: %q", watcher.fatal)
	}
}

func TestProcess_KillReachesItsChildren(t *testing.T) {
	t.Parallel()
	process := testenv.Start(t, exec.Command("sh", "-c", "sleep 60 & echo child $!; wait"))
	child, err := strconv.Atoi(strings.TrimPrefix(process.WaitLine("child "), "child "))
	if err != nil {
		t.Fatal(err)
	}
	process.Kill()
	if !gone(child) {
		t.Errorf("child %d lives on", child)
	}
}

func TestBuild_GivesTheSameExecutableTwice(t *testing.T) {
	t.Parallel()
	const pkg = "./internal/testenv/cmd/servers"
	first, second := testenv.Build(t, pkg), testenv.Build(t, pkg)
	if first != second {
		t.Errorf("%s and %s", first, second)
	}
	if err := testenv.Start(t, exec.Command(first, "-h")).Wait(10 * time.Second); err != nil {
		t.Error(err)
	}
}
