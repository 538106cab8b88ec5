package testenv

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	_ "github.com/go-sql-driver/mysql" // the "mysql" driver of database/sql
)

// MariaDBServer is a real MariaDB on loopback. [MariaDB] gives the shared one,
// [NewMariaDB] a private one, whose [Controls] may be used.
type MariaDBServer struct{ Controls }

var sharedMariaDB shared

// MariaDB returns the MariaDB that the tests of this binary share.
func MariaDB(t TB) *MariaDBServer {
	t.Helper()
	return &MariaDBServer{sharedMariaDB.controls(t, func() (*process, error) { return startMariaDB(nil) })}
}

// NewMariaDB starts a MariaDB for this test alone. Each of conf is a line of
// its option file, such as "innodb_flush_log_at_trx_commit = 1", which is off
// by default: it guards against a crash of the machine, not of the server.
func NewMariaDB(t TB, conf ...string) *MariaDBServer {
	t.Helper()
	return &MariaDBServer{own(t, func() (*process, error) { return startMariaDB(conf) })}
}

// Addr is host:port.
func (s *MariaDBServer) Addr() string { return loopback(s.process.port) }

// URL leads to the database "mysql", as root. Tests that write use a database
// of their own: [MariaDBServer.DB], [MariaDBServer.NewDatabase].
func (s *MariaDBServer) URL() string { return "mysql://root@" + s.Addr() + "/mysql" }

// NewDatabase makes an empty database, which is dropped at the end of t, and
// returns its data source name for go-sql-driver/mysql, to which parameters
// may be appended ("&clientFoundRows=true").
func (s *MariaDBServer) NewDatabase(t TB) string {
	t.Helper()
	return s.dsn(newDatabase(t, &s.Controls, "mysql", s.dsn(""),
		"CREATE DATABASE %s CHARACTER SET utf8mb4", "DROP DATABASE IF EXISTS %s"))
}

// DB opens an empty database, which is closed and dropped at the end of t.
func (s *MariaDBServer) DB(t TB) *sql.DB {
	t.Helper()
	return openDatabase(t, "mysql", s.NewDatabase(t))
}

func (s *MariaDBServer) dsn(database string) string {
	return "root@tcp(" + s.Addr() + ")/" + database + "?interpolateParams=true"
}

func startMariaDB(conf []string) (*process, error) {
	const by = "apt-get install mariadb-server"
	program, err := find("mariadbd", by, "/usr/sbin/mariadbd", "/usr/libexec/mariadbd")
	if err != nil {
		return nil, err
	}
	install, err := find("mariadb-install-db", by, "/usr/bin/mariadb-install-db")
	if err != nil {
		return nil, err
	}
	return serve("mariadb", func(dir string, port int) (*process, error) {
		attributes, account, err := lesserUser("mysql", dir)
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
		return newProcess("mariadb", run, readiness{line: "ready for connections"}, syscall.SIGKILL), nil
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
