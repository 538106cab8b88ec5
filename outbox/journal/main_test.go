package journal_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox/journal"
	"github.com/firstcome/firstcome/outbox/outboxtest"
)

func TestMain(m *testing.M) {
	// sarama's metrics have a ticker that nothing ends.
	sarama := goleak.IgnoreAnyFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick")
	goleak.VerifyTestMain(testenv.Wrap(m, testenv.Role{Name: "relay", Main: relayThatNeverTrims}), append(testenv.LeakOptions(), sarama)...)
}

const topic = "stock-events"

// memory is journals of pools in memory, with leases if asked for by leasing.
type memory struct {
	mu     sync.Mutex
	pools  map[string][]journal.Entry
	seqs   map[string]int64
	next   int
	asked  []int // n of each reading
	most   int   // events handed out at once
	fail   func(step string) error
	leases map[string]lease
}

type lease struct {
	relay string
	until time.Time
}

func newMemory() *memory {
	return &memory{pools: map[string][]journal.Entry{}, seqs: map[string]int64{}, leases: map[string]lease{}}
}

// add appends one entry with an event for each ID, in epoch 1.
func (m *memory) add(pool string, ids ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var events []journal.Event
	for _, id := range ids {
		m.seqs[pool]++
		events = append(events, journal.Event{SKU: pool, Epoch: 1, Seq: m.seqs[pool], Kind: "reserved", ID: id, Quantity: 1, At: time.Now()})
	}
	m.append(pool, events...)
}

// put appends one entry as it is.
func (m *memory) put(pool string, events ...journal.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.append(pool, events...)
}

func (m *memory) append(pool string, events ...journal.Event) {
	m.next++
	m.pools[pool] = append(m.pools[pool], journal.Entry{Position: fmt.Sprintf("%08d", m.next), Events: events})
}

// lose forgets a pool's journal.
func (m *memory) lose(pool string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pools, pool)
}

// waiting is the sequence numbers that are not yet trimmed.
func (m *memory) waiting(pool string) (seqs []int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.pools[pool] {
		for _, event := range e.Events {
			seqs = append(seqs, event.Seq)
		}
	}
	return seqs
}

func (m *memory) failing(step string) error {
	if m.fail != nil {
		return m.fail(step)
	}
	return nil
}

func (m *memory) ReadJournal(ctx context.Context, pool string, n int) ([]journal.Entry, error) {
	if err := errors.Join(ctx.Err(), m.failing("read")); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, n)
	list := m.pools[pool]
	list = append([]journal.Entry(nil), list[:min(n, len(list))]...)
	events := 0
	for _, e := range list {
		events += len(e.Events)
	}
	m.most = max(m.most, events)
	return list, nil
}

func (m *memory) TrimJournal(ctx context.Context, pool string, relayed ...string) error {
	if err := errors.Join(ctx.Err(), m.failing("trim")); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.pools[pool]) > 0 && slices.Contains(relayed, m.pools[pool][0].Position) {
		m.pools[pool] = m.pools[pool][1:]
	}
	return nil
}

// leasing is a memory with leases.
type leasing struct{ *memory }

func (l leasing) LeaseJournal(ctx context.Context, pool, relay string, ttl time.Duration) (bool, error) {
	if err := errors.Join(ctx.Err(), l.failing("lease")); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if has := l.leases[pool]; has.relay != relay && now.Before(has.until) {
		return false, nil
	}
	l.leases[pool] = lease{relay, now.Add(ttl)}
	return ttl > 0, nil
}

// start runs a relay and returns what stops it.
func start(t testing.TB, reader journal.Reader, pub message.Publisher, pools journal.Pools, opts journal.Options) (relay *journal.Relay, stop func() error) {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	relay, err := journal.New(reader, pub, topic, pools, &opts)
	ok(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		err = relay.Run(ctx)
		close(done)
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		<-done
		return err
	})
	t.Cleanup(func() { _ = stop() })
	return relay, stop
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pass lets time pass in a bubble.
func pass(d time.Duration) {
	time.Sleep(d) // in a bubble: no waiting
	synctest.Wait()
}

// publishers are the two kinds there are, on a recorder.
var publishers = map[string]func(*outboxtest.Recorder) message.Publisher{
	"OneByOne": func(r *outboxtest.Recorder) message.Publisher { return r },
	"Batches":  func(r *outboxtest.Recorder) message.Publisher { return outboxtest.BatchRecorder{Recorder: r} },
}

// eachPublisher runs a test in a bubble for both kinds of publisher.
func eachPublisher(t *testing.T, test func(t *testing.T, r *outboxtest.Recorder, pub message.Publisher)) {
	t.Helper()
	for name, make := range publishers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := outboxtest.NewRecorder(nil)
				test(t, r, make(r))
			})
		})
	}
}

// decode reads a payload as a consumer does.
func decode(t testing.TB, payload string) (e journal.Event) {
	t.Helper()
	ok(t, json.Unmarshal([]byte(payload), &e))
	return e
}

// firsts removes repeats by message ID, sees to it that they were repeats, and
// fails the test unless each key's events stand in order.
func firsts(t testing.TB, sent []outboxtest.Sent) []journal.Event {
	t.Helper()
	payloads := map[string]string{}
	for _, s := range sent {
		if p, seen := payloads[s.ID]; seen && p != s.Payload {
			t.Errorf("two events have the ID %s:\n%s\n%s", s.ID, p, s.Payload)
		}
		payloads[s.ID] = s.Payload
	}
	var events []journal.Event
	last := map[string]journal.Event{}
	for _, s := range outboxtest.FirstOfEach(sent) {
		e := decode(t, s.Payload)
		if s.ID != e.MessageID() || s.Key != e.Key() || s.Topic != topic {
			t.Errorf("%+v is not the message of its event", s)
		}
		if before, any := last[s.Key]; any && (before.Epoch > e.Epoch || before.Epoch == e.Epoch && before.Seq >= e.Seq) {
			t.Errorf("%d/%d came after %d/%d of the same key", e.Epoch, e.Seq, before.Epoch, before.Seq)
		}
		last[s.Key] = e
		events = append(events, e)
	}
	return events
}

// whole fails the test unless the events of an epoch are 1 to n.
func whole(t testing.TB, events []journal.Event, epoch int64, n int) {
	t.Helper()
	there := map[int64]bool{}
	for _, e := range events {
		if e.Epoch == epoch {
			there[e.Seq] = true
		}
	}
	for seq := range int64(n) {
		if !there[seq+1] {
			t.Errorf("event %d/%d is missing", epoch, seq+1)
		}
	}
	if len(there) != n {
		t.Errorf("%d events of epoch %d, want %d", len(there), epoch, n)
	}
}

// seqsOf is the sequence numbers of what was sent, repeats and all.
func seqsOf(t testing.TB, sent []outboxtest.Sent) (seqs []int64) {
	t.Helper()
	for _, s := range sent {
		seqs = append(seqs, decode(t, s.Payload).Seq)
	}
	return seqs
}

// seqOf is the number at the end of a message's ID.
func seqOf(msg *message.Message) (seq int64) {
	_, _ = fmt.Sscan(msg.UUID[strings.LastIndexByte(msg.UUID, '/')+1:], &seq)
	return seq
}

// logbook collects what is logged.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
