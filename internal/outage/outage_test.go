package outage_test

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/outage"
)

// answer is what a Redis server says, as go-redis types it.
type answer string

func (a answer) Error() string { return string(a) }
func (answer) RedisError()     {}

var _ redis.Error = answer("")

type code int

func (c code) Error() string { return "sqlite (" + strconv.Itoa(int(c)) + ")" }
func (c code) Code() int     { return int(c) }

// domain is an application's error with a code of its own.
type domain struct{}

func (domain) Error() string { return "order is closed" }
func (domain) Code() int     { return 5 }

func TestOf_TellsThreeKindsOfErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		kind outage.Kind
	}{
		{nil, outage.None},
		{errors.New("a bug"), outage.None},
		{context.Canceled, outage.None},
		{&net.DNSError{IsNotFound: true}, outage.Unavailable},
		{context.DeadlineExceeded, outage.Unavailable},
		{os.ErrDeadlineExceeded, outage.Unavailable},
		{io.EOF, outage.Unavailable},
		{net.ErrClosed, outage.Unavailable},
		{driver.ErrBadConn, outage.Unavailable},
		{mysql.ErrInvalidConn, outage.Unavailable},
		{redis.ErrPoolTimeout, outage.Unavailable},
		{errors.New("conn closed"), outage.Unavailable}, // pgx
		{sarama.ErrOutOfBrokers, outage.Unavailable},
		{sarama.ErrNotConnected, outage.Unavailable},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, outage.Unavailable},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, outage.Unavailable},
		{&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.ENOENT)}, outage.Unavailable},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}, outage.Unavailable},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}, outage.Unavailable},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(42)}, outage.Unavailable},
		{&net.OpError{Op: "dial", Err: &net.AddrError{Err: "missing port in address"}}, outage.None},
		{&net.OpError{Op: "dial", Err: net.UnknownNetworkError("tpc")}, outage.None},
		{left(), outage.None},
		{os.NewSyscallError("open", syscall.EACCES), outage.None},

		{answer("LOADING Redis is loading the dataset in memory"), outage.Unavailable},
		{answer("READONLY You can't write against a read only replica."), outage.Unavailable},
		{answer("OOM command not allowed when used memory > 'maxmemory'."), outage.Unavailable},
		{answer("CLUSTERDOWN The cluster is down"), outage.Unavailable},
		{answer("MASTERDOWN Link with MASTER is down"), outage.Unavailable},
		{answer("ERR max number of clients reached"), outage.Unavailable},
		{answer("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed"), outage.Unavailable},
		{answer("ERR Error running script (call to f_1): @user_script:1: attempt to index a nil value"), outage.None},
		{answer("WRONGTYPE Operation against a key holding the wrong kind of value"), outage.None},
		{answer("NOPERM this user has no permissions"), outage.None},
		{redis.Nil, outage.None},

		{&pgconn.PgError{Code: "40001"}, outage.Contention},
		{&pgconn.PgError{Code: "40P01"}, outage.Contention},
		{&pgconn.PgError{Code: "57P01"}, outage.Unavailable},
		{&pgconn.PgError{Code: "57P03"}, outage.Unavailable},
		{&pgconn.PgError{Code: "08006"}, outage.Unavailable},
		{&pgconn.PgError{Code: "53300"}, outage.Unavailable},
		{&pgconn.PgError{Code: "57014"}, outage.None},
		{&pgconn.PgError{Code: "08P01"}, outage.None},
		{&pgconn.PgError{Code: "23505"}, outage.None},
		{&mysql.MySQLError{Number: 1213, SQLState: [5]byte{'4', '0', '0', '0', '1'}, Message: "Deadlock found"}, outage.Contention},
		{&mysql.MySQLError{Number: 1205, Message: "Lock wait timeout exceeded"}, outage.Contention},
		{&mysql.MySQLError{Number: 1053, Message: "Server shutdown in progress"}, outage.Unavailable},
		{&mysql.MySQLError{Number: 1047, SQLState: [5]byte{'0', '8', 'S', '0', '1'}, Message: "WSREP has not yet prepared node for application use"}, outage.Unavailable},
		{&mysql.MySQLError{Number: 1203, SQLState: [5]byte{'4', '2', '0', '0', '0'}, Message: "User shop already has more than 'max_user_connections' active connections"}, outage.Unavailable},
		{&mysql.MySQLError{Number: 1226, SQLState: [5]byte{'4', '2', '0', '0', '0'}, Message: "User 'shop' has exceeded the 'max_user_connections' resource (current value: 10)"}, outage.Unavailable},
		{&mysql.MySQLError{Number: 3032, Message: "The server is currently in offline mode"}, outage.Unavailable},
		{&mysql.MySQLError{Number: 3572, Message: "Statement aborted because lock(s) could not be acquired immediately and NOWAIT is set."}, outage.Contention},
		{&mysql.MySQLError{Number: 1062, Message: "Duplicate entry 'Error 1213 '"}, outage.None},
		{code(5), outage.Contention},
		{code(261), outage.Contention},
		{code(13), outage.Unavailable},
		{code(19), outage.None},
		{domain{}, outage.None},
		{errors.New("database is locked"), outage.Contention},

		{outage.Mark(errors.New("payment provider: 503")), outage.Unavailable},
		{outage.New("store unavailable"), outage.Unavailable},
		{errors.Join(code(5), io.EOF), outage.Unavailable},
		{errors.Join(errors.New("a bug"), code(5)), outage.Contention},
	} {
		for _, err := range []error{c.err, wrapped(c.err), wrapped(wrapped(c.err))} {
			if kind := outage.Of(t.Context(), err); kind != c.kind {
				t.Errorf("%v: %v, want %v", err, kind, c.kind)
			}
		}
	}
}

func TestOf_ATimeoutIsTheAttemptsOwnWhereItsTimeIsUp(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for _, c := range []struct {
		err  error
		kind outage.Kind
	}{
		{context.DeadlineExceeded, outage.None},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, outage.None},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ETIMEDOUT)}, outage.None},
		{os.NewSyscallError("connect", syscall.ECONNREFUSED), outage.Unavailable},
		{io.EOF, outage.Unavailable},
		{answer("LOADING"), outage.Unavailable},
		{fmt.Errorf("%w: %w", outage.New("outcome unknown"), context.DeadlineExceeded), outage.Unavailable},
	} {
		if kind := outage.Of(over, wrapped(c.err)); kind != c.kind {
			t.Errorf("%v: %v, want %v", c.err, kind, c.kind)
		}
	}
}

func TestMark_KeepsTheChainAndNothing(t *testing.T) {
	t.Parallel()
	if outage.Mark(nil) != nil {
		t.Error("nil was marked")
	}
	err := outage.Mark(io.ErrShortWrite)
	if !errors.Is(err, io.ErrShortWrite) || err.Error() != io.ErrShortWrite.Error() {
		t.Errorf("marked: %v", err)
	}
}

// left is the error of a dial whose caller left.
func left() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:1")
	return err
}

func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("step: %w", err)
}
