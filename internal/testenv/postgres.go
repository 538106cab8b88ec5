package testenv

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the "pgx" driver of database/sql
)

// PostgresServer is a real PostgreSQL on loopback. [Postgres] gives the shared
// one, [NewPostgres] a private one, whose [Controls] may be used.
type PostgresServer struct {
	Controls
	postgres *postgresProcess
}

// postgresProcess is what all handles of one server have in common.
type postgresProcess struct {
	process *process
	port    int
}

var sharedPostgres shared[*postgresProcess]

// Postgres returns the PostgreSQL that the tests of this binary share.
func Postgres(t TB) *PostgresServer {
	t.Helper()
	needMain(t)
	server, err := sharedPostgres.get(func() (*postgresProcess, *process, error) {
		s, err := startPostgres(nil)
		if err != nil {
			return nil, nil, err
		}
		return s, s.process, nil
	})
	need(t, err)
	return &PostgresServer{Controls: Controls{t: t, process: server.process, shared: true}, postgres: server}
}

// NewPostgres starts a PostgreSQL for this test alone. Each of conf is a line
// of postgresql.conf, such as "fsync = on", which is off by default: it guards
// against a crash of the machine, not of the server.
func NewPostgres(t TB, conf ...string) *PostgresServer {
	t.Helper()
	needMain(t)
	server, err := startPostgres(conf)
	need(t, err)
	return &PostgresServer{Controls: private(t, server.process), postgres: server}
}

// Addr is host:port.
func (s *PostgresServer) Addr() string { return loopback(s.postgres.port) }

// URL leads to the database "postgres", as a superuser. Tests that write use
// a database of their own: [PostgresServer.DB], [PostgresServer.NewDatabase].
func (s *PostgresServer) URL() string { return s.postgres.url("postgres") }

// NewDatabase makes an empty database, which is dropped at the end of t, and
// returns its URL.
func (s *PostgresServer) NewDatabase(t TB) string {
	t.Helper()
	name := strings.ReplaceAll(Name(t), "-", "_")
	if err := s.postgres.admin("CREATE DATABASE " + name); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if _, err := s.process.alive(); err != nil || !s.shared {
			return // a private server goes as a whole
		}
		if err := s.postgres.admin("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	return s.postgres.url(name)
}

// DB opens an empty database, through pgx, which is closed and dropped at the
// end of t.
func (s *PostgresServer) DB(t TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", s.NewDatabase(t))
	if err != nil {
		t.Fatalf("testenv: open a database: %v", err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the test may have closed it itself
	return db
}

func (p *postgresProcess) url(database string) string {
	return "postgres://postgres@" + loopback(p.port) + "/" + database + "?sslmode=disable"
}

// admin runs one statement on a connection of its own.
func (p *postgresProcess) admin(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := sql.Open("pgx", p.url("postgres"))
	if err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func startPostgres(conf []string) (*postgresProcess, error) {
	const by, where = "apt-get install postgresql", "/usr/lib/postgresql/*/bin/"
	program, err := find("postgres", by, where+"postgres")
	if err != nil {
		return nil, err
	}
	initdb, err := find("initdb", by, where+"initdb")
	if err != nil {
		return nil, err
	}
	return retry(func() (*postgresProcess, error) {
		dir, err := folder("postgres")
		if err != nil {
			return nil, err
		}
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
		port, err := freePort()
		if err != nil {
			return nil, err
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
		p := newProcess("postgres", run, readiness{line: "ready to accept connections"}, syscall.SIGQUIT)
		if err := p.start(); err != nil {
			return nil, err
		}
		return &postgresProcess{process: p, port: port}, nil
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
