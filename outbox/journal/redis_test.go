package journal_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/pressly/goose/v3"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/internal/faulty"
	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/journal"
	"github.com/firstcome/firstcome/outbox/kafkapub"
	"github.com/firstcome/firstcome/outbox/outboxtest"
	"github.com/firstcome/firstcome/outbox/streampub"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/sqlledger"
	"github.com/firstcome/firstcome/stock/stocktest"
)

// shop is a store with one pool, whose journal is relayed.
type shop struct {
	t     testing.TB
	store *redisstock.Store
	pool  stock.Pool
}

// newShop opens a pool of 10,000 units.
func newShop(t testing.TB, client redis.UniversalClient, ledger stock.Ledger, bound int64) *shop {
	t.Helper()
	store, err := redisstock.New(client, ledger, redisstock.JournalRelayed(bound), &redisstock.Options{Memory: -1})
	ok(t, err)
	s := &shop{t: t, store: store, pool: stock.Pool{SKU: testenv.Name(t), Total: 10_000, Hold: 10 * time.Hour}}
	_, err = store.Open(t.Context(), s.pool)
	ok(t, err)
	return s
}

func (s *shop) reader() journal.Reader { return fxmodule.JournalReader(s.store) }

func (s *shop) reserve(buyer string) (stock.Hold, error) {
	return s.store.Reserve(s.t.Context(), stock.Request{
		ID: stock.NewID(s.pool.SKU, buyer, stocktest.Claim()), SKU: s.pool.SKU, Buyer: buyer, Quantity: 1})
}

// sale is a few buyers who each reserve, and confirm and return, or cancel: three
// or two events each.
func (s *shop) sale(from, buyers int) (events int) {
	s.t.Helper()
	var all sync.WaitGroup
	for i := from; i < from+buyers; i++ {
		events += 3 - i%2
		all.Go(func() {
			hold, err := s.reserve(fmt.Sprint("buyer ", i))
			if err == nil && i%2 == 1 {
				_, err = s.store.Cancel(s.t.Context(), hold.ID)
			} else if err == nil {
				if _, err = s.store.Confirm(s.t.Context(), hold.ID); err == nil {
					_, err = s.store.Return(s.t.Context(), hold.ID)
				}
			}
			if err != nil {
				s.t.Error(err)
			}
		})
	}
	all.Wait()
	return events
}

// left counts the events that are not trimmed.
func (s *shop) left() (n int) {
	s.t.Helper()
	entries, err := s.store.ReadJournal(context.WithoutCancel(s.t.Context()), s.pool.SKU, 1000)
	ok(s.t, err)
	for _, e := range entries {
		n += len(e.Events)
	}
	return n
}

// relayed waits until the journal is empty.
func (s *shop) relayed() {
	s.t.Helper()
	until(s.t, "the journal is empty", func() bool { return s.left() == 0 })
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if done() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// entries reads a stream as what was sent to the topic.
func entries(t testing.TB, client redis.UniversalClient, stream string) (sent []outboxtest.Sent) {
	t.Helper()
	list, err := client.XRange(context.WithoutCancel(t.Context()), stream, "-", "+").Result()
	ok(t, err)
	for _, e := range list {
		msg, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(e.Values)
		ok(t, err)
		sent = append(sent, outboxtest.Sent{ID: msg.UUID, Topic: topic, Key: msg.Metadata[outbox.MetadataKey], Payload: string(msg.Payload)})
	}
	return sent
}

// to is a publisher that sends everything to one stream, so that tests may share
// a Redis.
type to struct {
	outbox.BatchPublisher
	message.Publisher
	stream string
}

func stream(t testing.TB, client redis.UniversalClient, name string) to {
	t.Helper()
	p, err := streampub.New(client, nil)
	ok(t, err)
	return to{BatchPublisher: p.(outbox.BatchPublisher), Publisher: p, stream: name}
}

func (p to) PublishBatch(ctx context.Context, batch []*message.Message) []error {
	for _, msg := range batch {
		msg.Metadata[outbox.MetadataTopic] = p.stream
	}
	return p.BatchPublisher.PublishBatch(ctx, batch)
}

func TestRedis_EveryEventOfACrowdArrivesOnceAndInOrder(t *testing.T) {
	t.Parallel()
	testenv.EachRedis(t, func(t *testing.T, client redis.UniversalClient) {
		s, r := newShop(t, client, nil, 0), outboxtest.NewRecorder(nil)
		start(t, s.reader(), outboxtest.BatchRecorder{Recorder: r}, journal.These(s.pool.SKU), journal.Options{})
		want := 0
		for i := range 5 {
			want += s.sale(100*i, 100)
		}
		s.relayed()
		events := firsts(t, r.Sent())
		whole(t, events, events[0].Epoch, want)
		if len(r.Sent()) != want {
			t.Errorf("%d messages for %d events", len(r.Sent()), want)
		}
		kinds := map[string]int{}
		for _, e := range events {
			kinds[e.Kind]++
			if e.SKU != s.pool.SKU || e.Quantity != 1 || time.Since(e.At) > time.Hour {
				t.Fatalf("%+v", e)
			}
			_, err := stock.ParseID(e.ID)
			ok(t, err)
		}
		if kinds["reserved"] != 500 || kinds["confirmed"] != 250 || kinds["returned"] != 250 || kinds["cancelled"] != 250 {
			t.Errorf("kinds: %v", kinds)
		}
	})
}

func TestRedis_BasketsAndAdjustmentsArriveWithTheirLines(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	store, err := redisstock.New(client, nil, redisstock.JournalRelayed(0), nil)
	ok(t, err)
	pool := stock.Pool{SKU: testenv.Name(t), Items: []stock.Item{{SKU: "shirt", Total: 5}, {SKU: "cap", Total: 5}}}
	_, err = store.Open(t.Context(), pool)
	ok(t, err)
	lines := []stock.Line{{SKU: "shirt", Quantity: 2}, {SKU: "cap", Quantity: 1}}
	hold, err := store.Reserve(t.Context(), stock.Request{ID: stock.NewID(pool.SKU, "ann", stocktest.Claim()), SKU: pool.SKU, Buyer: "ann", Lines: lines})
	ok(t, err)
	_, err = store.Confirm(t.Context(), hold.ID, stock.Line{SKU: "shirt", Quantity: 1})
	ok(t, err)
	_, err = store.Adjust(t.Context(), stock.Adjustment{ID: stocktest.Claim(), SKU: pool.SKU, Version: 1, Add: []stock.Line{{SKU: "cap", Quantity: 3}}})
	ok(t, err)
	r := outboxtest.NewRecorder(nil)
	start(t, fxmodule.JournalReader(store), outboxtest.BatchRecorder{Recorder: r}, journal.These(pool.SKU), journal.Options{})
	got := ""
	for _, e := range firsts(t, r.Wait(t, outboxtest.AtLeast(3))) {
		got += fmt.Sprintf("%d %s %v %d %v %v; ", e.Seq, e.Kind, e.ID == hold.ID.String(), e.Quantity, e.Lines, e.Released)
	}
	want := "1 reserved true 3 [{shirt 2} {cap 1}] []; 2 confirmed true 1 [{shirt 1}] [{shirt 1} {cap 1}]; 3 added false 3 [{cap 3}] []; "
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRedis_TenMinutesWithoutABrokerRefuseReservationsAtTheBoundAndLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 50
		s, r := newShop(t, testenv.Bubble(t), nil, bound), outboxtest.NewRecorder(nil)
		away := true
		var mu sync.Mutex
		r.Answer = func(string, *message.Message) error {
			mu.Lock()
			defer mu.Unlock()
			if away {
				return errAway
			}
			return nil
		}
		start(t, s.reader(), r, journal.These(s.pool.SKU), journal.Options{})
		var held []stock.Hold
		refused := 0
		for i := range 600 { // ten minutes
			hold, err := s.reserve(fmt.Sprint(i))
			switch {
			case err == nil && refused == 0:
				held = append(held, hold)
			case errors.Is(err, stock.ErrJournalFull):
				refused++
			default:
				t.Fatalf("second %d: %v", i, err)
			}
			pass(time.Second)
		}
		if len(held) != bound || s.left() != bound {
			t.Errorf("%d held, %d events waiting; the bound is %d", len(held), s.left(), bound)
		}
		for _, h := range held { // what is held can be sold all the same
			_, err := s.store.Confirm(t.Context(), h.ID)
			ok(t, err)
		}
		mu.Lock()
		away = false
		mu.Unlock()
		pass(10 * time.Second)
		if s.left() != 0 || len(r.Sent()) != 2*bound {
			t.Errorf("%d left, %d sent", s.left(), len(r.Sent()))
		}
		events := firsts(t, r.Sent())
		whole(t, events, events[0].Epoch, 2*bound)
		_, err := s.reserve("late") // the sale goes on
		ok(t, err)
	})
}

func TestRedis_AKilledBrokerThatComesBackGetsEverythingInOrder(t *testing.T) {
	t.Parallel()
	const bound = 40
	broker := testenv.NewRedis(t, "appendonly yes", "appendfsync always")
	s := newShop(t, testenv.Redis(t).Client(t), nil, bound)
	start(t, s.reader(), stream(t, broker.Client(t, func(o *redis.Options) { o.MaxRetries = -1 }), "s"), journal.These(s.pool.SKU), journal.Options{})
	want := s.sale(0, 10)
	s.relayed()
	broker.Kill()
	full := false
	for i := 0; !full && i < 10*bound; i++ {
		_, err := s.reserve(fmt.Sprint("more ", i))
		if full = errors.Is(err, stock.ErrJournalFull); !full {
			ok(t, err)
			want++
		}
	}
	if !full || s.left() < bound {
		t.Errorf("no reservation was refused though %d events wait", s.left())
	}
	broker.Restart()
	s.relayed()
	events := firsts(t, entries(t, broker.Client(t), "s"))
	whole(t, events, events[0].Epoch, want)
	_, err := s.reserve("late")
	ok(t, err)
}

func TestRedis_TwoRelaysThroughLostRepliesKeepEachKeysOrder(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := server.Client(t)
	s := newShop(t, client, nil, 0)
	var faults []*faulty.Fault
	for range 2 {
		dialer := faulty.NewDialer()
		cut := server.Client(t, func(o *redis.Options) { o.Dialer, o.MaxRetries = dialer.DialContext, -1 })
		faults = append(faults, dialer.CutReply(2, faulty.Contains("xadd")))
		withoutLease := struct{ journal.Reader }{s.reader()}
		start(t, withoutLease, stream(t, cut, s.pool.SKU+":stream"), journal.These(s.pool.SKU), journal.Options{BatchSize: 20, PollInterval: 2 * time.Millisecond})
	}
	want := 0
	for i := range 10 {
		want += s.sale(50*i, 50)
	}
	s.relayed()
	for _, f := range faults {
		f.MustFire(t)
	}
	sent := entries(t, client, s.pool.SKU+":stream")
	events := firsts(t, sent)
	whole(t, events, events[0].Epoch, want)
	t.Logf("%d messages for %d events", len(sent), want)
}

const envRedis, envPool = "JOURNAL_TEST_REDIS", "JOURNAL_TEST_POOL"

// relayThatNeverTrims is a process that hangs, for its test to kill it, when it
// has published and is about to trim.
func relayThatNeverTrims() error {
	client := redis.NewClient(&redis.Options{Addr: os.Getenv(envRedis)})
	pool := os.Getenv(envPool)
	store, err := redisstock.New(client, nil, redisstock.JournalRelayed(0), nil)
	if err != nil {
		return err
	}
	p, err := streampub.New(client, nil)
	if err != nil {
		return err
	}
	pub := to{BatchPublisher: p.(outbox.BatchPublisher), Publisher: p, stream: pool + ":stream"}
	relay, err := journal.New(hanging{fxmodule.JournalReader(store)}, pub, topic, journal.These(pool), nil)
	if err != nil {
		return err
	}
	return relay.Run(context.Background())
}

type hanging struct{ journal.Reader }

func (hanging) TrimJournal(context.Context, string, ...string) error {
	fmt.Println("about to trim")
	select {}
}

func TestRedis_KilledBetweenPublishingAndTrimmingARelayRepeatsTheSameIDs(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client := server.Client(t)
	s := newShop(t, client, nil, 0)
	want := s.sale(0, 20)
	child := testenv.Start(t, testenv.Command(t, "relay", envRedis+"="+server.Addr(), envPool+"="+s.pool.SKU))
	child.WaitLine("about to trim")
	child.Kill()
	before := entries(t, client, s.pool.SKU+":stream")
	if len(before) == 0 || s.left() != want {
		t.Fatalf("%d published, %d of %d left", len(before), s.left(), want)
	}
	want += s.sale(20, 20)
	start(t, s.reader(), stream(t, client, s.pool.SKU+":stream"), journal.These(s.pool.SKU), journal.Options{})
	s.relayed()
	sent := entries(t, client, s.pool.SKU+":stream")
	events := firsts(t, sent)
	whole(t, events, events[0].Epoch, want)
	if len(sent) != want+len(before) {
		t.Errorf("%d messages: want %d events, and the %d of the killed relay again", len(sent), want, len(before))
	}
}

func TestRedis_EventsOfBothEpochsArriveAfterARebuild(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s, r := newShop(t, client, ledger(t), 0), outboxtest.NewRecorder(nil)
	before := s.sale(0, 10)
	// Redis loses the pool, and not yet the journal: its events are still to be told.
	keys, err := client.Keys(t.Context(), fmt.Sprintf("fc:stock:1:{%x}:pool", stock.NewID(s.pool.SKU, "", [16]byte{}).PoolPart())).Result()
	ok(t, err)
	if len(keys) != 1 {
		t.Fatalf("the pool's keys are %v", keys)
	}
	ok(t, client.Del(t.Context(), keys...).Err())
	if _, err := s.reserve("nobody"); err == nil {
		t.Fatal("a pool that is gone still sells")
	}
	_, err = s.store.Rebuild(t.Context(), s.pool.SKU)
	ok(t, err)
	after := s.sale(10, 10)
	start(t, s.reader(), r, journal.These(s.pool.SKU), journal.Options{})
	s.relayed()
	events := firsts(t, r.Sent())
	whole(t, events, 1, before)
	whole(t, events, 2, after)
	if len(r.Sent()) != before+after {
		t.Errorf("%d messages, want %d and %d with IDs of their own", len(r.Sent()), before, after)
	}
}

// ledger is one in a SQLite file.
func ledger(t testing.TB) stock.Ledger {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "ledger.db")+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_txlock=immediate")
	ok(t, err)
	t.Cleanup(func() { _ = db.Close() })
	files, err := sqlledger.Migrations("sqlite")
	ok(t, err)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	ok(t, err)
	_, err = p.Up(t.Context())
	ok(t, err)
	l, err := sqlledger.New(db, "sqlite", nil)
	ok(t, err)
	return l
}

func TestStreams_ARefusedStreamStopsThePoolUntilItIsMended(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newShop(t, client, nil, 0)
	name := s.pool.SKU + ":stream"
	ok(t, client.Set(t.Context(), name, "not a stream", 0).Err())
	told := make(chan journal.Refusal, 10_000)
	start(t, s.reader(), stream(t, client, name), journal.These(s.pool.SKU), journal.Options{
		RefusedRetry: 20 * time.Millisecond, OnRefused: func(r journal.Refusal) { told <- r }})
	want := s.sale(0, 20)
	if r := <-told; r.Pool != s.pool.SKU || r.Seq != 1 {
		t.Errorf("told %+v", r)
	}
	<-told
	if s.left() != want {
		t.Errorf("%d of %d events left", s.left(), want)
	}
	ok(t, client.Del(t.Context(), name).Err())
	s.relayed()
	events := firsts(t, entries(t, client, name))
	whole(t, events, events[0].Epoch, want)
}

func TestKafka_AnUnknownTopicStopsThePoolUntilItIsMade(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	ok(t, err)
	t.Cleanup(cluster.Close)
	s := newShop(t, testenv.Mini(t), nil, 0)
	pub, err := kafkapub.New(cluster.ListenAddrs(), &kafkapub.Options{Logger: slog.New(slog.DiscardHandler)})
	ok(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	told := make(chan journal.Refusal, 1000)
	_, stop := start(t, s.reader(), pub, journal.These(s.pool.SKU), journal.Options{
		Concurrency: 1, RefusedRetry: 300 * time.Millisecond, // after three errors sarama waits ten seconds
		OnRefused: func(r journal.Refusal) { told <- r }})
	t.Cleanup(func() { ok(t, stop()) }) // before the publisher is closed
	want := s.sale(0, 20)
	<-told
	if s.left() != want {
		t.Errorf("%d of %d events left", s.left(), want)
	}
	admin, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	ok(t, err)
	defer admin.Close()
	create, made := kmsg.NewPtrCreateTopicsRequest(), kmsg.NewCreateTopicsRequestTopic()
	made.Topic, made.NumPartitions, made.ReplicationFactor = topic, 4, 1
	create.Topics = append(create.Topics, made)
	_, err = create.RequestWith(t.Context(), admin)
	ok(t, err)
	s.relayed()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ok(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var sent []outboxtest.Sent
	for len(sent) < want && ctx.Err() == nil {
		for _, record := range client.PollFetches(ctx).Records() {
			e := decode(t, string(record.Value))
			sent = append(sent, outboxtest.Sent{ID: e.MessageID(), Topic: record.Topic, Key: string(record.Key), Payload: string(record.Value)})
		}
	}
	events := firsts(t, sent)
	whole(t, events, events[0].Epoch, want)
}
