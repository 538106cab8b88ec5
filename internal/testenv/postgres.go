package testenv

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	_ "github.com/jackc/pgx/v5/stdlib" // the "pgx" driver of database/sql
)

// PostgresServer is a real PostgreSQL on loopback. [Postgres] gives the shared
// one, [NewPostgres] a private one, whose [Controls] may be used.
type PostgresServer struct{ Controls }

var sharedPostgres shared

// Postgres returns the PostgreSQL that the tests of this binary share.
func Postgres(t TB) *PostgresServer {
	t.Helper()
	return &PostgresServer{sharedPostgres.controls(t, func() (*process, error) { return startPostgres(nil) })}
}

// NewPostgres starts a PostgreSQL for this test alone. Each of conf is a line
// of postgresql.conf, such as "fsync = on", which is off by default: it guards
// against a crash of the machine, not of the server.
func NewPostgres(t TB, conf ...string) *PostgresServer {
	t.Helper()
	return &PostgresServer{own(t, func() (*process, error) { return startPostgres(conf) })}
}

// Addr is host:port.
func (s *PostgresServer) Addr() string { return loopback(s.process.port) }

// URL leads to the database "postgres", as a superuser. Tests that write use
// a database of their own: [PostgresServer.DB], [PostgresServer.NewDatabase].
func (s *PostgresServer) URL() string { return s.url("postgres") }

// NewDatabase makes an empty database, which is dropped at the end of t, and
// returns its URL.
func (s *PostgresServer) NewDatabase(t TB) string {
	t.Helper()
	return s.url(newDatabase(t, &s.Controls, "pgx", s.URL(),
		"CREATE DATABASE %s", "DROP DATABASE IF EXISTS %s WITH (FORCE)"))
}

// DB opens an empty database, through pgx, which is closed and dropped at the
// end of t.
func (s *PostgresServer) DB(t TB) *sql.DB {
	t.Helper()
	return openDatabase(t, "pgx", s.NewDatabase(t))
}

func (s *PostgresServer) url(database string) string {
	return "postgres://postgres@" + s.Addr() + "/" + database + "?sslmode=disable"
}

func startPostgres(conf []string) (*process, error) {
	const by, where = "apt-get install postgresql", "/usr/lib/postgresql/*/bin/"
	program, err := find("postgres", by, where+"postgres")
	if err != nil {
		return nil, err
	}
	initdb, err := find("initdb", by, where+"initdb")
	if err != nil {
		return nil, err
	}
	return serve("postgres", func(dir string, port int) (*process, error) {
		attributes, _, err := lesserUser("postgres", dir)
		if err != nil {
			return nil, err
		}
		data := filepath.Join(dir, "data")
		create := exec.Command(initdb, "--pgdata", data, "--username", "postgres", "--auth", "trust",
			"--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
		create.Dir, create.SysProcAttr = dir, attributes
		if text, err := create.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("initdb: %w\n%s", err, text)
		}
		lines := append([]string{
			"",
			"listen_addresses = '127.0.0.1'",
			fmt.Sprintf("port = %d", port),
			"unix_socket_directories = ''",
			"max_connections = 200",
			"shared_buffers = 128MB",
			"max_wal_size = 2GB",
			"fsync = off",
			"full_page_writes = off", // torn pages need a crash of the machine, too
			"logging_collector = off",
			"log_min_messages = warning",
		}, conf...)
		if err := appendFile(filepath.Join(data, "postgresql.conf"), strings.Join(lines, "\n")+"\n"); err != nil {
			return nil, fmt.Errorf("configure postgres: %w", err)
		}
		run := exec.Command(program, "-D", data)
		run.Dir, run.SysProcAttr = dir, attributes
		// SIGQUIT is its own word for stopping at once; it then gives its
		// shared memory back, which kill -9 would leave behind.
		return newProcess("postgres", run, readiness{line: "ready to accept connections"}, syscall.SIGQUIT), nil
	})
}

func appendFile(name, text string) error {
	file, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := file.WriteString(text); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}
