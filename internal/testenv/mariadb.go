package testenv

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql" // the "mysql" driver of database/sql
)

// MariaDBServer is a real MariaDB on loopback. [MariaDB] gives the shared one,
// [NewMariaDB] a private one, whose [Controls] may be used.
type MariaDBServer struct {
	Controls
	maria *mariaProcess
}

// mariaProcess is what all handles of one server have in common.
type mariaProcess struct {
	process *process
	port    int
}

var sharedMariaDB shared[*mariaProcess]

// MariaDB returns the MariaDB that the tests of this binary share.
func MariaDB(t TB) *MariaDBServer {
	t.Helper()
	needMain(t)
	server, err := sharedMariaDB.get(func() (*mariaProcess, *process, error) {
		s, err := startMariaDB(nil)
		if err != nil {
			return nil, nil, err
		}
		return s, s.process, nil
	})
	need(t, err)
	return &MariaDBServer{Controls: Controls{t: t, process: server.process, shared: true}, maria: server}
}

// NewMariaDB starts a MariaDB for this test alone. Each of conf is a line of
// its option file, such as "innodb_flush_log_at_trx_commit = 1", which is off
// by default: it guards against a crash of the machine, not of the server.
func NewMariaDB(t TB, conf ...string) *MariaDBServer {
	t.Helper()
	needMain(t)
	server, err := startMariaDB(conf)
	need(t, err)
	return &MariaDBServer{Controls: private(t, server.process), maria: server}
}

// Addr is host:port.
func (s *MariaDBServer) Addr() string { return loopback(s.maria.port) }

// URL leads to the database "mysql", as root. Tests that write use a database
// of their own: [MariaDBServer.DB], [MariaDBServer.NewDatabase].
func (s *MariaDBServer) URL() string { return "mysql://root@" + s.Addr() + "/mysql" }

// NewDatabase makes an empty database, which is dropped at the end of t, and
// returns its data source name for go-sql-driver/mysql, to which parameters
// may be appended ("&clientFoundRows=true").
func (s *MariaDBServer) NewDatabase(t TB) string {
	t.Helper()
	name := strings.ReplaceAll(Name(t), "-", "_")
	if err := s.maria.admin("CREATE DATABASE " + name + " CHARACTER SET utf8mb4"); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if _, err := s.process.alive(); err != nil || !s.shared {
			return // a private server goes as a whole
		}
		if err := s.maria.admin("DROP DATABASE IF EXISTS " + name); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	return s.maria.dsn(name)
}

// DB opens an empty database, which is closed and dropped at the end of t.
func (s *MariaDBServer) DB(t TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", s.NewDatabase(t))
	if err != nil {
		t.Fatalf("testenv: open a database: %v", err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the test may have closed it itself
	return db
}

func (p *mariaProcess) dsn(database string) string {
	return "root@tcp(" + loopback(p.port) + ")/" + database + "?interpolateParams=true"
}

// admin runs one statement on a connection of its own.
func (p *mariaProcess) admin(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := sql.Open("mysql", p.dsn(""))
	if err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func startMariaDB(conf []string) (*mariaProcess, error) {
	const by = "apt-get install mariadb-server"
	program, err := find("mariadbd", by, "/usr/sbin/mariadbd", "/usr/libexec/mariadbd")
	if err != nil {
		return nil, err
	}
	install, err := find("mariadb-install-db", by, "/usr/bin/mariadb-install-db")
	if err != nil {
		return nil, err
	}
	return retry(func() (*mariaProcess, error) {
		dir, err := folder("mariadb")
		if err != nil {
			return nil, err
		}
		attributes, account, err := lesserUser("mysql", dir)
		if err != nil {
			return nil, err
		}
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		options := filepath.Join(dir, "my.cnf")
		if err := os.WriteFile(options, []byte(mariaOptions(dir, account, port, conf)), 0o644); err != nil { //nolint:gosec // the server's user reads it
			return nil, fmt.Errorf("configure mariadb: %w", err)
		}
		create := exec.Command(install, "--defaults-file="+options,
			"--auth-root-authentication-method=normal", "--skip-test-db")
		create.Dir, create.SysProcAttr = dir, attributes
		if text, err := create.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("mariadb-install-db: %w\n%s", err, text)
		}
		run := exec.Command(program, "--defaults-file="+options)
		run.Dir, run.SysProcAttr = dir, attributes
		p := newProcess("mariadb", run, readiness{line: "ready for connections"}, syscall.SIGKILL)
		if err := p.start(); err != nil {
			return nil, err
		}
		return &mariaProcess{process: p, port: port}, nil
	})
}

// mariaOptions is the server's option file; conf comes last and wins.
func mariaOptions(dir, account string, port int, conf []string) string {
	lines := append([]string{
		"[mariadbd]",
		"datadir = " + filepath.Join(dir, "data"),
		"tmpdir = " + dir,
		"socket = " + filepath.Join(dir, "sock"),
		"pid_file = " + filepath.Join(dir, "pid"),
		"bind_address = 127.0.0.1",
		"port = " + strconv.Itoa(port),
		"max_connections = 200",
		"innodb_buffer_pool_size = 128M",
		"innodb_log_file_size = 128M",
		"innodb_flush_log_at_trx_commit = 2",
		"innodb_flush_method = nosync",
		"innodb_doublewrite = 0", // torn pages need a crash of the machine, too
		"skip_name_resolve = 1",
		"performance_schema = 0",
	}, conf...)
	if account != "" {
		lines = append(lines, "user = "+account)
	}
	return strings.Join(lines, "\n") + "\n"
}
