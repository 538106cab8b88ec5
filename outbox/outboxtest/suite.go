package outboxtest

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/firstcome/firstcome/outbox"
)

// Harness is how the suite gets a store.
type Harness struct {
	// New returns an empty store and the way to write to it.
	New func(t *testing.T) Subject

	// OneWriter says that two writing transactions cannot be open at once, so
	// that cases which need this do not exist.
	OneWriter bool
}

// Subject is one store under test.
type Subject struct {
	Store interface {
		outbox.Store
		outbox.Operator
	}
	Begin func(t testing.TB) Tx
}

// Tx is the application's transaction.
type Tx interface {
	Add(ctx context.Context, msgs ...outbox.Message) error
	Commit() error
	Rollback() error
}

// Run runs the suite; each subtest is a sentence about the store.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"Message_ComesBackByteForByte", messageRoundTrip},
		{"Message_InvalidIsRefusedAndNothingWritten", messageInvalid},
		{"Rollback_LeavesNothingAndNobodyWaitsForTheHole", rollback},
		{"LateCommit_IsReadAfterLaterRowsWereSettled", lateCommit},
		{"Read_GivesPagesInOrderAndSaysWhenThereIsMore", readPages},
		{"Read_StopsAtMaxBytes", readBytes},
		{"Settle_DeletesExactlyTheNamedRows", settleExact},
		{"Settle_OfAnOlderEpochDeletesNothing", settleFenced},
		{"Settle_SparesARowOfAnotherID", settleOtherID},
		{"Settle_TwiceCountsOnce", settleTwice},
		{"Lease_SpreadsLanesAndTakesThemOverWithAHigherEpoch", leaseSpread},
		{"Lease_OfADeadRelayIsTakenOverAfterItsTime", leaseDead},
		{"Leave_FreesLanesAtOnceButThoseKept", leaseLeave},
		{"Park_MovesTheRowWithItsError", parkMoves},
		{"Park_IsFenced", parkFenced},
		{"Park_HoldsOnlyWhatIsBehindAParkedMessage", parkHolds},
		{"Requeue_PutsBackAKeyInItsOrder", requeueOrder},
		{"Drop_LetsTheKeyGoOn", dropGoesOn},
		{"Stats_AddUpToWhatWasWritten", statsAddUp},
		{"Relays_DeliverEachOnceInOrderOfItsKey", relaysDeliver},
		{"Relays_TakeOverFromOneThatStops", relaysTakeOver},
		{"Relay_ParksPoisonAndEverythingElseFlows", relayPoison},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, h) })
	}
}

// Msg is a message for tests; its ID tells key and number.
func Msg(key string, n int) outbox.Message {
	return outbox.Message{ID: fmt.Sprintf("%s/%d", key, n), Topic: "orders", Key: key, Payload: []byte(fmt.Sprintf("payload %d", n))}
}

func write(t testing.TB, s Subject, msgs ...outbox.Message) {
	t.Helper()
	tx := s.Begin(t)
	must(t, tx.Add(t.Context(), msgs...))
	must(t, tx.Commit())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lease(t testing.TB, s Subject, relay string, ttl time.Duration, release ...int) outbox.Leases {
	t.Helper()
	leases, err := s.Store.Lease(t.Context(), outbox.LeaseRequest{Relay: relay, TTL: ttl, Release: release})
	must(t, err)
	return leases
}

// owner takes all lanes for a relay, for tests of what an owner may do.
func owner(t testing.TB, s Subject, relay string) map[int]outbox.Lease {
	t.Helper()
	lanes := map[int]outbox.Lease{}
	for _, l := range lease(t, s, relay, time.Minute).Lanes {
		lanes[l.Lane] = l
	}
	if len(lanes) != outbox.Lanes {
		t.Fatalf("%s owns %d lanes, want %d", relay, len(lanes), outbox.Lanes)
	}
	return lanes
}

// all reads every committed row.
func all(t testing.TB, s Subject) []outbox.Row {
	t.Helper()
	var windows []outbox.Window
	for lane := range outbox.Lanes {
		windows = append(windows, outbox.Window{Lane: lane, Until: math.MaxInt64, Limit: 1000})
	}
	pages, err := s.Store.Read(t.Context(), outbox.ReadRequest{Windows: windows, MaxBytes: 1 << 30})
	must(t, err)
	var rows []outbox.Row
	for _, p := range pages {
		rows = append(rows, p.Rows...)
	}
	return rows
}

func rewinds(t testing.TB, s Subject, lane int) int64 {
	t.Helper()
	pages, err := s.Store.Read(t.Context(), outbox.ReadRequest{MaxBytes: 1,
		Windows: []outbox.Window{{Lane: lane, Until: math.MaxInt64, Limit: 1}}})
	must(t, err)
	return pages[0].Rewinds
}

func receipt(l outbox.Lease, r outbox.Row) outbox.Receipt {
	return outbox.Receipt{Lane: r.Lane, Epoch: l.Epoch, Seq: r.Seq, ID: r.ID}
}

func settle(t testing.TB, s Subject, relay string, receipts ...outbox.Receipt) int {
	t.Helper()
	n, err := s.Store.Settle(t.Context(), relay, receipts)
	must(t, err)
	return n
}

func ids(rows []outbox.Row) []string {
	out := []string{}
	for _, r := range rows {
		out = append(out, r.ID)
	}
	return out
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

// eventually waits for what a real server's clock decides.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("after half a minute not: %s", what)
}

var quiet = slog.New(slog.DiscardHandler)

// start runs a relay until stop is called or the test ends.
func start(t testing.TB, s Subject, r *Recorder, opts outbox.Options) (relay *outbox.Relay, stop func()) {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = quiet
	}
	relay, err := outbox.NewRelay(s.Store, r, []string{"orders"}, &opts)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return relay, stop
}
