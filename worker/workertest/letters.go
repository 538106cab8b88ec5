package workertest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firstcome/firstcome/worker"
)

// LetterParts is what the suite needs of one fresh store of dead letters.
type LetterParts struct {
	Store worker.LetterStore
	// Other is another process' value on the same letters.
	Other worker.LetterStore
	// MaxPayload is how many bytes of a payload the store keeps.
	MaxPayload int
}

// Letters runs the suite. parts is called once per test.
func Letters(t *testing.T, parts func(t *testing.T) LetterParts) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p LetterParts)
	}{
		{"Letter_ComesBackWhole", letterWhole},
		{"PutAgain_IsOneLetter", putAgain},
		{"OddIDs_AreLettersApart", oddLetters},
		{"EventsWithoutID_AreLettersApart_AndRepeatsAreNot", lettersWithoutID},
		{"Listing_GoesByPages_WithoutPayloads", letterPages},
		{"Listing_Selects", letterSelects},
		{"Requeue_OnceAndOnlyWhatLies", requeueOnce},
		{"Requeue_ClosesChanged", requeueTells},
		{"Requeued_AreListedForTheirHandlers", requeuedFor},
		{"RequeuedWithoutAWorker_IsSaid", requeuedAlone},
		{"Take_OneOfManyHasIt", takeOnce},
		{"Take_AfterTheLease_OrARelease", takeLater},
		{"Remove_OnlyFromTheHandThatHasIt", removeOwn},
		{"PutBack_LiesAgain_WithTheSumOfAttempts", putBack},
		{"Drop_LeavesATombstone_ThatNoPutRevives", dropStays},
		{"Drop_OfOneInHand_IsRefused", dropRunning},
		{"LargePayload_IsCut_AndNotRequeued", cutLetter},
		{"Stats_CountByTopicHandlerClassAndState", letterStats},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, parts(t)) })
	}
}

func letterOf(n int) worker.Letter {
	return worker.Letter{
		Handler: "h", Topic: "orders", EventID: fmt.Sprintf("event-%d", n), Key: "k", Payload: []byte(`{"n":1}`),
		Metadata: map[string]string{worker.MetaKey: "k"}, Class: worker.ClassFailed, Err: "broken", Attempts: 3,
		Origin: worker.Origin{Topic: "orders", Partition: "3", Offset: "120"},
	}
}

// put stores a letter and returns it as stored.
func (p LetterParts) put(t *testing.T, l worker.Letter) worker.StoredLetter {
	t.Helper()
	ok(t, p.Store.Put(t.Context(), l))
	stored, err := p.Store.Find(t.Context(), l.Handler, l.EventID)
	ok(t, err)
	return stored
}

// requeued is put, and requeued.
func (p LetterParts) requeued(t *testing.T, l worker.Letter) worker.StoredLetter {
	t.Helper()
	stored := p.put(t, l)
	ok(t, p.Store.Requeue(t.Context(), stored.Seq))
	return stored
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func letterWhole(t *testing.T, p LetterParts) {
	l := letterOf(1)
	l.Key, l.Payload = "k\x00\xff", []byte{0, 255, 'a'}
	l.Metadata = map[string]string{"a": "\xff\x00", "": "b", "ä": "ö"}
	l.Err = "text \xff\x00 " + strings.Repeat("é", 600)
	got := p.put(t, l)
	if got.EventID != l.EventID || got.Key != l.Key || got.Topic != l.Topic || !bytes.Equal(got.Payload, l.Payload) ||
		!maps.Equal(got.Metadata, l.Metadata) || got.Class != l.Class || got.Attempts != 3 || got.Origin != l.Origin {
		t.Errorf("got %+v, want %+v", got, l)
	}
	if len(got.Err) > 512 || !strings.HasPrefix(got.Err, "text ??") || got.State != worker.LetterDead || got.Size != 3 || got.Cut ||
		got.Running || got.NoWorker || got.Age < 0 || got.Age > time.Hour || got.At.Before(time.Now().Add(-time.Hour)) || got.At.After(time.Now().Add(time.Hour)) {
		t.Errorf("got %+v", got)
	}
	if _, err := p.Store.Find(t.Context(), "h", "nothing"); !errors.Is(err, worker.ErrNoLetter) {
		t.Errorf("Find: %v", err)
	}
	_, err := p.Store.Letter(t.Context(), got.Seq+1)
	is(t, err, worker.ErrNoLetter)
}

func putAgain(t *testing.T, p LetterParts) {
	first := p.put(t, letterOf(1))
	again := letterOf(1)
	again.Err, again.Attempts = "other", 9
	if got := p.put(t, again); got.Seq != first.Seq || got.Err != "broken" || got.Attempts != 3 {
		t.Errorf("got %+v", got)
	}
	other := letterOf(1)
	other.Handler = "H"
	if got := p.put(t, other); got.Seq == first.Seq {
		t.Error("another handler's letter is the same")
	}
	ok(t, p.Store.Requeue(t.Context(), first.Seq))
	if got := p.put(t, again); got.State != worker.LetterRequeued {
		t.Errorf("a put ended the requeue: %+v", got)
	}
	for id, want := range map[string]bool{"event-1": true, "event-2": false} {
		if buried, err := p.Other.Buried(t.Context(), "h", id); err != nil || buried != want {
			t.Errorf("Buried %s: %v, %v", id, buried, err)
		}
	}
}

func oddLetters(t *testing.T, p LetterParts) {
	long := strings.Repeat("x", 10_000)
	seen := map[int64]bool{}
	for _, id := range []string{"a", "A", "a ", " a", "ä", "a\u0308", "a\x00", "a\xff", long, long + "y", "sha256:a", "sha256:A", "'; --", "%", "\\", "?"} {
		l := letterOf(1)
		l.EventID = id
		if buried, err := p.Store.Buried(t.Context(), "h", id); err != nil || buried {
			t.Fatalf("%.20q is buried before it is put: %v, %v", id, buried, err)
		}
		got := p.put(t, l)
		if seen[got.Seq] || got.EventID != id {
			t.Errorf("%.20q: got %.40q, seq %d", id, got.EventID, got.Seq)
		}
		seen[got.Seq] = true
	}
}

func lettersWithoutID(t *testing.T, p LetterParts) {
	l := letterOf(1)
	l.EventID = ""
	for _, offset := range []string{"1", "2", "", "1"} {
		l.Origin.Offset = offset
		ok(t, p.Store.Put(t.Context(), l))
	}
	page, err := p.Store.Letters(t.Context(), worker.LetterQuery{})
	ok(t, err)
	if len(page) != 3 {
		t.Errorf("%d letters, want 3", len(page))
	}
}

func letterPages(t *testing.T, p LetterParts) {
	for n := range 7 {
		p.put(t, letterOf(n))
	}
	var ids []string
	for after := int64(0); ; {
		page, err := p.Other.Letters(t.Context(), worker.LetterQuery{After: after, Limit: 3})
		ok(t, err)
		if len(page) > 3 {
			t.Fatalf("%d on a page of 3", len(page))
		}
		if len(page) == 0 {
			break
		}
		for _, l := range page {
			if l.Payload != nil || l.Size != 7 || l.Seq <= after {
				t.Errorf("got %+v after %d", l, after)
			}
			ids, after = append(ids, l.EventID), l.Seq
		}
	}
	if got := strings.Join(ids, " "); got != "event-0 event-1 event-2 event-3 event-4 event-5 event-6" {
		t.Errorf("got %s", got)
	}
}

func letterSelects(t *testing.T, p LetterParts) {
	a, b, c := letterOf(1), letterOf(2), letterOf(3)
	b.Handler, b.Class = "other", worker.ClassPanic
	c.Topic = "things"
	p.put(t, a)
	p.put(t, b)
	ok(t, p.Store.Drop(t.Context(), p.put(t, c).Seq))
	for want, q := range map[string]worker.LetterQuery{
		"event-1 event-2": {},
		"event-2":         {Handler: "other"},
		"event-1":         {Topic: "orders", Class: worker.ClassFailed},
		"event-3":         {State: worker.LetterDropped},
		"":                {State: worker.LetterRequeued},
	} {
		page, err := p.Store.Letters(t.Context(), q)
		ok(t, err)
		var ids []string
		for _, l := range page {
			ids = append(ids, l.EventID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%+v: got %q, want %q", q, got, want)
		}
	}
}

func requeueOnce(t *testing.T, p LetterParts) {
	l := p.requeued(t, letterOf(1))
	is(t, p.Other.Requeue(t.Context(), l.Seq), worker.ErrRequeued)
	is(t, p.Store.Requeue(t.Context(), l.Seq+1), worker.ErrNoLetter)
	if got, err := p.Store.Letter(t.Context(), l.Seq); err != nil || got.State != worker.LetterRequeued || got.Requeues != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	poison := letterOf(2)
	poison.Handler, poison.Class = "", worker.ClassFormat
	is(t, p.Store.Requeue(t.Context(), p.put(t, poison).Seq), worker.ErrNotRequeueable)
}

func requeueTells(t *testing.T, p LetterParts) {
	l := p.put(t, letterOf(1))
	changed := p.Store.Changed()
	select {
	case <-changed:
		t.Fatal("closed before")
	default:
	}
	ok(t, p.Store.Requeue(t.Context(), l.Seq))
	select {
	case <-changed:
	default:
		t.Error("not closed")
	}
}

func (p LetterParts) work(t *testing.T, handlers ...string) string {
	t.Helper()
	page, err := p.Store.Requeued(t.Context(), handlers, 0, 10)
	ok(t, err)
	var ids []string
	for _, l := range page {
		ids = append(ids, l.EventID)
	}
	return strings.Join(ids, " ")
}

func requeuedFor(t *testing.T, p LetterParts) {
	other := letterOf(2)
	other.Handler = "other"
	first := p.requeued(t, letterOf(1))
	p.requeued(t, other)
	p.put(t, letterOf(3))
	for want, handlers := range map[string][]string{"event-1": {"h"}, "event-2": {"x", "other"}, "event-1 event-2": {"h", "other"}, "": {"x"}} {
		if got := p.work(t, handlers...); got != want {
			t.Errorf("%v: got %q, want %q", handlers, got, want)
		}
	}
	if _, taken, err := p.Other.Take(t.Context(), first.Seq, "me", time.Minute); err != nil || !taken {
		t.Fatal(taken, err)
	}
	if got := p.work(t, "h"); got != "" {
		t.Errorf("in hand and listed: %q", got)
	}
}

func requeuedAlone(t *testing.T, p LetterParts) {
	l := p.requeued(t, letterOf(1))
	for _, want := range []bool{true, false} {
		page, err := p.Store.Letters(t.Context(), worker.LetterQuery{State: worker.LetterRequeued})
		ok(t, err)
		if len(page) != 1 || page[0].NoWorker != want {
			t.Errorf("got %+v, want NoWorker %v", page, want)
		}
		p.work(t, l.Handler) // a worker asks
	}
}

func takeOnce(t *testing.T, p LetterParts) {
	l := p.requeued(t, letterOf(1))
	var took atomic.Int64
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			store := p.Store
			if n%2 == 0 {
				store = p.Other
			}
			got, taken, err := store.Take(t.Context(), l.Seq, fmt.Sprint("taker-", n), time.Minute)
			if err != nil {
				t.Error(err)
			}
			if taken {
				took.Add(1)
				if string(got.Payload) != `{"n":1}` || !got.Running {
					t.Errorf("took %+v", got)
				}
			}
		})
	}
	all.Wait()
	if n := took.Load(); n != 1 {
		t.Errorf("%d have it", n)
	}
}

func takeLater(t *testing.T, p LetterParts) {
	l := p.requeued(t, letterOf(1))
	take := func(taker string, lease time.Duration) bool {
		t.Helper()
		_, taken, err := p.Store.Take(t.Context(), l.Seq, taker, lease)
		ok(t, err)
		return taken
	}
	for range 2 { // again is anew
		if !take("a", time.Minute) || take("b", time.Minute) {
			t.Fatal("the lease is not a's alone")
		}
	}
	ok(t, p.Store.Release(t.Context(), l.Seq, "b")) // not b's to release
	if take("b", time.Minute) {
		t.Fatal("b has it")
	}
	ok(t, p.Store.Release(t.Context(), l.Seq, "a"))
	if !take("b", time.Millisecond) {
		t.Fatal("released and not to be had")
	}
	time.Sleep(20 * time.Millisecond) // the database's clock
	if !take("c", time.Minute) || take("b", time.Minute) {
		t.Fatal("the lease does not end")
	}
	lying := p.put(t, letterOf(2))
	if _, taken, err := p.Store.Take(t.Context(), lying.Seq, "a", time.Minute); err != nil || taken {
		t.Errorf("took one that lies: %v", err)
	}
}

func removeOwn(t *testing.T, p LetterParts) {
	l := p.requeued(t, letterOf(1))
	_, _, err := p.Store.Take(t.Context(), l.Seq, "a", time.Minute)
	ok(t, err)
	for _, c := range []struct {
		taker string
		want  bool
	}{{"b", false}, {"a", true}, {"a", false}} {
		if removed, err := p.Store.Remove(t.Context(), l.Seq, c.taker); err != nil || removed != c.want {
			t.Errorf("Remove by %s: %v, %v", c.taker, removed, err)
		}
	}
	is(t, p.Store.Requeue(t.Context(), l.Seq), worker.ErrNoLetter)
	is(t, p.Store.Drop(t.Context(), l.Seq), worker.ErrNoLetter)
}

func putBack(t *testing.T, p LetterParts) {
	l := p.requeued(t, letterOf(1))
	_, _, err := p.Store.Take(t.Context(), l.Seq, "a", time.Minute)
	ok(t, err)
	failed := letterOf(1)
	failed.Class, failed.Err, failed.Attempts = worker.ClassPanic, "worse", 2
	ok(t, p.Store.PutBack(t.Context(), l.Seq, "b", failed)) // not b's
	if got, err := p.Store.Letter(t.Context(), l.Seq); err != nil || got.State != worker.LetterRequeued || got.Err != "broken" {
		t.Errorf("got %+v, %v", got, err)
	}
	ok(t, p.Store.PutBack(t.Context(), l.Seq, "a", failed))
	got, err := p.Store.Letter(t.Context(), l.Seq)
	if err != nil || got.State != worker.LetterDead || got.Class != worker.ClassPanic || got.Err != "worse" || got.Attempts != 5 || got.Requeues != 1 || got.Running {
		t.Errorf("got %+v, %v", got, err)
	}
	ok(t, p.Store.Requeue(t.Context(), l.Seq))
}

func dropStays(t *testing.T, p LetterParts) {
	l := p.put(t, letterOf(1))
	ok(t, p.Other.Drop(t.Context(), l.Seq))
	if got := p.put(t, letterOf(1)); got.State != worker.LetterDropped || got.Payload != nil || got.Metadata != nil || got.EventID != "event-1" {
		t.Errorf("put again: %+v", got)
	}
	if buried, err := p.Store.Buried(t.Context(), "h", "event-1"); err != nil || !buried {
		t.Errorf("Buried: %v, %v", buried, err)
	}
	is(t, p.Store.Requeue(t.Context(), l.Seq), worker.ErrNoLetter)
	is(t, p.Store.Drop(t.Context(), l.Seq), worker.ErrNoLetter)
}

func dropRunning(t *testing.T, p LetterParts) {
	l := p.requeued(t, letterOf(1))
	_, _, err := p.Store.Take(t.Context(), l.Seq, "a", time.Minute)
	ok(t, err)
	is(t, p.Other.Drop(t.Context(), l.Seq), worker.ErrLetterRunning)
	ok(t, p.Store.Release(t.Context(), l.Seq, "a"))
	ok(t, p.Other.Drop(t.Context(), l.Seq))
	if _, taken, err := p.Store.Take(t.Context(), l.Seq, "a", time.Minute); err != nil || taken {
		t.Errorf("took a dropped one: %v", err)
	}
}

func cutLetter(t *testing.T, p LetterParts) {
	l := letterOf(1)
	l.Payload = bytes.Repeat([]byte("x"), p.MaxPayload+1)
	got := p.put(t, l)
	if !got.Cut || len(got.Payload) != p.MaxPayload || got.Size != int64(p.MaxPayload)+1 {
		t.Errorf("payload of %d, size %d, cut %v", len(got.Payload), got.Size, got.Cut)
	}
	is(t, p.Store.Requeue(t.Context(), got.Seq), worker.ErrNotRequeueable)
	ok(t, p.Store.Drop(t.Context(), got.Seq))
	l = letterOf(2)
	l.Metadata["large"] = strings.Repeat("x", 1<<20)
	if got := p.put(t, l); !got.Cut || got.Key != "k" || len(got.Metadata) != 0 {
		t.Errorf("got %+v", got)
	}
	l = letterOf(3)
	l.Key, l.Topic = strings.Repeat("k", 1<<20), strings.Repeat("t", 1<<20)
	if got := p.put(t, l); !got.Cut || len(got.Key)+len(got.Topic) > 4096 {
		t.Errorf("key of %d, topic of %d", len(got.Key), len(got.Topic))
	}
	l = letterOf(4)
	l.Handler = strings.Repeat("h", 101)
	if err := p.Store.Put(t.Context(), l); err == nil {
		t.Error("a handler's name of 101 bytes was taken")
	}
}

func letterStats(t *testing.T, p LetterParts) {
	panicked := letterOf(3)
	panicked.Class = worker.ClassPanic
	p.put(t, letterOf(1))
	p.requeued(t, letterOf(2))
	p.put(t, panicked)
	p.put(t, letterOf(4))
	ok(t, p.Store.Drop(t.Context(), p.put(t, letterOf(5)).Seq))
	stats, err := p.Store.LetterStats(t.Context())
	ok(t, err)
	got := map[string]int64{}
	for _, s := range stats {
		got[fmt.Sprint(s.Topic, s.Handler, s.Class, s.State)] = s.Count
		if s.Oldest < 0 || s.Oldest > time.Hour {
			t.Errorf("oldest %v", s.Oldest)
		}
	}
	want := map[string]int64{"ordershfaileddead": 2, "ordershfailedrequeued": 1, "ordershpanicdead": 1, "ordershfaileddropped": 1}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
