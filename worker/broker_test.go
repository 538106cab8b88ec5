package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/worker"
)

const topic = "order.placed"

// order is what the tests' events hold.
type order struct {
	N int `json:"n"`
}

// broker is a subscriber in memory that hands out ahead of acknowledgements, as
// a good one would, and keeps what was not acknowledged.
type broker struct {
	ackTakes time.Duration // from the acknowledgement to the broker's having it

	mu         sync.Mutex
	subscribes int
	fail       error // of Subscribe
	sent       chan *message.Message
	end        context.CancelFunc // ends the subscription from the broker's side
	acked      []string
}

func (b *broker) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subscribes++
	if b.fail != nil {
		return nil, b.fail
	}
	ctx, end := context.WithCancel(ctx)
	out, sent := make(chan *message.Message), make(chan *message.Message, 1000)
	b.sent, b.end = sent, end
	go func() {
		defer close(out)
		for {
			select {
			case m := <-sent:
				b.deliver(ctx, m, out)
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// deliver gives a message a context that ends once its acknowledgement is taken.
func (b *broker) deliver(ctx context.Context, m *message.Message, out chan<- *message.Message) {
	mctx, done := context.WithCancel(ctx)
	m.SetContext(mctx)
	select {
	case out <- m:
	case <-ctx.Done():
		done()
		return
	}
	go func() {
		defer done()
		select {
		case <-m.Acked():
			time.Sleep(b.ackTakes)
			b.mu.Lock()
			defer b.mu.Unlock()
			if ctx.Err() == nil { // else lost on its way
				b.acked = append(b.acked, m.UUID)
			}
		case <-ctx.Done():
		}
	}()
}

func (b *broker) Close() error { return nil }

func (b *broker) send(msgs ...*message.Message) {
	b.mu.Lock()
	sent := b.sent
	b.mu.Unlock()
	for _, m := range msgs {
		sent <- m
	}
}

// ackedIDs are sorted: acknowledgements are taken by one goroutine each.
func (b *broker) ackedIDs() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(slices.Values(b.acked))
}

func event(id, key string, n int) *message.Message {
	payload, err := json.Marshal(order{n})
	if err != nil {
		panic(err) // a struct of one number
	}
	m := message.NewMessage(id, payload)
	m.Metadata.Set(worker.MetaFormat, worker.Format)
	if key != "" {
		m.Metadata.Set(worker.MetaKey, key)
	}
	return m
}

// letters is a dead letter store in memory.
type letters struct {
	mu   sync.Mutex
	fail error
	all  []worker.Letter
}

func (l *letters) Put(_ context.Context, letter worker.Letter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	l.all = append(l.all, letter)
	return nil
}

func (l *letters) setFail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *letters) get() []worker.Letter {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// memInbox is an inbox in memory. The fields make it fail, or break it on
// purpose.
type memInbox struct {
	mu   sync.Mutex
	done map[string]bool
	fail error

	refuses string // the ID of an event that it cannot hold

	blind     bool // mutant: never finds anything
	markFirst bool // mutant: marks before the handler ran
}

func newInbox() *memInbox { return &memInbox{done: map[string]bool{}} }

func (i *memInbox) Seen(_ context.Context, handler, id string) (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fail != nil {
		return false, i.fail
	}
	if i.refuses == id {
		return false, errBroken
	}
	seen := i.done[handler+"/"+id] && !i.blind
	if i.markFirst {
		i.done[handler+"/"+id] = true
	}
	return seen, nil
}

func (i *memInbox) Mark(_ context.Context, handler, id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fail != nil {
		return i.fail
	}
	i.done[handler+"/"+id] = true
	return nil
}

func (i *memInbox) setFail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail = err
}

// log notes what happened, in order.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (l *log) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// bench is one worker on doubles, for use inside a synctest bubble.
type bench struct {
	*worker.Worker
	broker  *broker
	inbox   *memInbox
	letters *letters
	logged  *bytes.Buffer // read after stop
	stop    func() error  // ends Run and returns what it returned
	cancel  context.CancelFunc
	ended   chan error
}

func newBench(t *testing.T, opts worker.Options) *bench {
	t.Helper()
	b := &bench{broker: &broker{}, inbox: newInbox(), letters: &letters{}, logged: &bytes.Buffer{}, ended: make(chan error, 1)}
	var mu sync.Mutex
	opts.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, b.logged}, nil))
	if opts.Retry == nil {
		opts.Retry = func(int) time.Duration { return time.Second }
	}
	w, err := worker.New(b.broker, b.inbox, b.letters, &opts)
	if err != nil {
		t.Fatal(err)
	}
	b.Worker = w
	return b
}

// start runs the worker and waits until it is subscribed.
func (b *bench) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b.cancel = cancel
	go func() { b.ended <- b.Run(ctx) }()
	b.stop = sync.OnceValue(func() error {
		cancel()
		return <-b.ended
	})
	t.Cleanup(func() { _ = b.stop() })
	synctest.Wait()
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

var errBroken = errors.New("broken")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T any](t *testing.T, what string, got, want []T, same func(a, b T) bool) {
	t.Helper()
	if !slices.EqualFunc(got, want, same) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func equalStrings(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	equal(t, what, got, want, func(a, b string) bool { return a == b })
}
