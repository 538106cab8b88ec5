package sqloutbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/outboxtest"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
)

var quiet = slog.New(slog.DiscardHandler)

// file is a broker that outlives those who publish to it: a line per message,
// each by one append. Its n-th acceptance kills the process, before or after.
type file struct {
	path          string
	before, after int
	n             int
}

func (f *file) Publish(_ string, msgs ...*message.Message) error {
	for _, msg := range msgs {
		f.n++
		if f.n == f.before {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		out, err := os.OpenFile(f.path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s %s %s\n", msg.Metadata[outbox.MetadataKey], msg.UUID, msg.Payload)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
		if f.n == f.after {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	return nil
}

func (f *file) Close() error { return nil }

// accepted reads the file as what was sent.
func (f *file) accepted(t *testing.T) []outboxtest.Sent {
	t.Helper()
	text, err := os.ReadFile(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ok(t, err)
	var sent []outboxtest.Sent
	for line := range strings.Lines(string(text)) {
		var s outboxtest.Sent
		if _, err := fmt.Sscanf(line, "%s %s payload %s", &s.Key, &s.ID, &s.Payload); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		sent = append(sent, s)
	}
	return sent
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const childLease = 800 * time.Millisecond

// relayProcess is a relay in a process of its own, to be killed and frozen. Its
// calls to the publisher go one at a time.
func relayProcess() error {
	db, err := sql.Open("pgx", os.Getenv("OUTBOX_DB"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	store, err := sqloutbox.New(db, "postgres", nil)
	if err != nil {
		return err
	}
	f := &file{path: os.Getenv("OUTBOX_FILE")}
	f.before, _ = strconv.Atoi(os.Getenv("OUTBOX_BEFORE"))
	f.after, _ = strconv.Atoi(os.Getenv("OUTBOX_AFTER"))
	relay, err := outbox.NewRelay(store, f, []string{"orders"}, &outbox.Options{
		LeaseTTL: childLease, PollInterval: 20 * time.Millisecond, Concurrency: 1, Logger: quiet})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("relay runs")
	return relay.Run(ctx)
}

// shop is a database on PostgreSQL, a file as broker, and a writer.
type shop struct {
	t     *testing.T
	db    *sql.DB
	url   string
	store *sqloutbox.Store
	file  *file
	each  int // messages written of each key
}

const shopKeys = 12

func newShop(t *testing.T, server *testenv.PostgresServer) *shop {
	t.Helper()
	url := server.NewDatabase(t)
	db, err := sql.Open("pgx", url)
	ok(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return &shop{t: t, db: db, url: url, store: newStore(t, db, "postgres"), file: &file{path: filepath.Join(t.TempDir(), "broker")}}
}

func (s *shop) child(env ...string) *testenv.Process {
	s.t.Helper()
	return testenv.Start(s.t, testenv.Command(s.t, "relay", append(env, "OUTBOX_DB="+s.url, "OUTBOX_FILE="+s.file.path)...))
}

// write adds so many messages of each key, retrying transactions that fail; one
// whose commit failed is asked for by its IDs, as a real writer does.
func (s *shop) write(n int) {
	s.t.Helper()
	for range n {
		s.retry(func(ctx context.Context, tx *sql.Tx) error {
			for k := range shopKeys {
				if err := s.store.Add(ctx, tx, outboxtest.Msg(fmt.Sprintf("k%d", k), s.each)); err != nil {
					return err
				}
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO written VALUES ($1)", s.each)
			return err
		})
		s.each++
	}
}

func (s *shop) retry(work func(context.Context, *sql.Tx) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		tx, err := s.db.BeginTx(ctx, nil)
		if err == nil {
			if err = work(ctx, tx); err == nil {
				err = tx.Commit()
			}
			_ = tx.Rollback()
		}
		if err == nil || strings.Contains(err.Error(), "written_pkey") { // an unknown commit took effect
			return
		}
		if ctx.Err() != nil {
			s.t.Fatal(err)
		}
	}
}

// settled waits until nothing is pending and checks what the broker got.
func (s *shop) settled() []outboxtest.Sent {
	s.t.Helper()
	var st outbox.Stats
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	want := int64(s.each * shopKeys)
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); <-tick.C {
		var err error
		if st, err = s.store.Stats(context.Background()); err == nil && st.Pending == 0 && st.Relayed == want {
			sent := s.file.accepted(s.t)
			outboxtest.InOrder(s.t, sent)
			if got := len(outboxtest.FirstOfEach(sent)); got != int(want) {
				s.t.Fatalf("%d of %d messages reached the broker", got, want)
			}
			return sent
		}
	}
	s.t.Fatalf("after a minute %d written, %+v", want, st)
	return nil
}

func (s *shop) prepare() {
	_, err := s.db.Exec("CREATE TABLE written (n int PRIMARY KEY)")
	ok(s.t, err)
}

func TestKill_BeforeAndAfterTheBrokersAckLosesNothing(t *testing.T) {
	server := testenv.Postgres(t)
	for name, env := range map[string]string{"Before": "OUTBOX_BEFORE=7", "After": "OUTBOX_AFTER=7"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, server)
			s.prepare()
			s.write(5)
			first := s.child(env)
			if err := first.Wait(30 * time.Second); err == nil {
				t.Fatal("the child was not killed")
			}
			s.child()
			sent := s.settled()
			// At most the one unanswered call, and acks not yet deleted.
			if repeats := len(sent) - s.each*shopKeys; repeats > 7 {
				t.Errorf("%d repeats", repeats)
			}
		})
	}
}

func TestKill_RelaysAtRandomMomentsLosesNothingAndKeepsOrder(t *testing.T) {
	s := newShop(t, testenv.Postgres(t))
	s.prepare()
	children := []*testenv.Process{s.child(), s.child(), s.child()}
	for _, c := range children {
		c.WaitLine("relay runs")
	}
	for range 8 {
		s.write(5 + rand.IntN(10))
		c := children[rand.IntN(len(children))]
		c.Kill()
		s.write(5)
		c.Restart()
	}
	s.settled()
}

func TestFreeze_ARelayPastItsLeaseIsFencedAndOrderHolds(t *testing.T) {
	s := newShop(t, testenv.Postgres(t))
	s.prepare()
	frozen := s.child()
	frozen.WaitLine("relay runs")
	s.write(3)
	s.settled()
	s.write(40)
	frozen.Stop() // somewhere in the middle of the work
	before := len(s.file.accepted(t))
	second := s.child()
	second.WaitLine("relay runs")
	s.write(10)
	s.settled()
	taken := len(s.file.accepted(t))
	if before == taken {
		t.Log("the first had finished before it was frozen")
	}
	frozen.Cont()
	s.write(20)
	sent := s.settled()
	ok(t, second.Terminate(20*time.Second))
	s.write(20) // the thawed one takes the lanes again
	s.settled()
	_ = sent
}

func TestDatabase_StoppedAtOnceInTheMiddleIsFoundAgainAndNothingLost(t *testing.T) {
	server := testenv.NewPostgres(t)
	s := newShop(t, server)
	s.prepare()
	for range 2 {
		startRelay(t, s.store, s.file2())
	}
	for range 3 {
		s.write(10)
		server.Kill()
		server.Restart()
		s.write(10)
	}
	s.settled()
}

// file2 is the same broker for a relay in this process.
func (s *shop) file2() *file { return &file{path: s.file.path} }

func startRelay(t *testing.T, store outbox.Store, pub message.Publisher) (relay *outbox.Relay, stop func()) {
	t.Helper()
	relay, err := outbox.NewRelay(store, pub, []string{"orders"}, &outbox.Options{
		LeaseTTL: childLease, PollInterval: 20 * time.Millisecond, Concurrency: 1, Logger: quiet})
	ok(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return relay, stop
}

func TestConnections_CutInTheMiddleLoseNothing(t *testing.T) {
	s := newShop(t, testenv.Postgres(t))
	s.prepare()
	startRelay(t, s.store, s.file2())
	for range 5 {
		s.write(10)
		_, _ = s.db.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	}
	s.settled()
}

func TestCommit_WhoseReplyIsLostIsRepeatedAndNothingSentTwice(t *testing.T) {
	server := testenv.Postgres(t)
	s := newShop(t, server)
	s.prepare()
	config, err := pgx.ParseConfig(s.url)
	ok(t, err)
	dialer := faulty.NewDialer()
	config.DialFunc = dialer.DialContext
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // each statement's text goes over the wire
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = db.Close() })
	store, err := sqloutbox.New(db, "postgres", nil)
	ok(t, err)
	for nth := range 8 {
		_, stop := startRelay(t, store, s.file2())
		fault := dialer.CutReply(1, faulty.Contains("gone")) // the delete itself, which then is rolled back
		if nth > 0 {
			fault = dialer.CutReply(nth, faulty.Contains("commit")) // of a read or a delete, which stands
		}
		s.write(10)
		fault.MustFire(t)
		sent := s.settled()
		if len(sent) != s.each*shopKeys {
			t.Fatalf("%d sent, %d written", len(sent), s.each*shopKeys)
		}
		stop()
	}
}
