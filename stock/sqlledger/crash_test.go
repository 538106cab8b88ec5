package sqlledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
)

// crasher is a private server of the test's.
type crasher interface {
	Kill()
	Restart()
}

func TestLedger_KilledInMidStormKeepsWhatItPromised(t *testing.T) {
	t.Parallel()
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		server := testenv.NewPostgres(t)
		killInStorm(t, server, newEnv(t, server.DB(t), "postgres", nil))
	})
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		server := testenv.NewMariaDB(t)
		killInStorm(t, server, newEnv(t, server.DB(t), "mysql", nil))
	})
}

// storm is what the clients of a server that dies have been told.
type storm struct {
	mu           sync.Mutex
	tried        []stock.Hold
	placed, sold map[stock.ID]bool
	cancelled    map[stock.ID]bool
}

func (s *storm) note(set map[stock.ID]bool, id stock.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set[id] = true
}

// run orders and sells until an answer fails, as all do once the server is
// dead. It closes started when there is something to lose.
func (s *storm) run(ctx context.Context, e *env, w int, started chan<- struct{}) {
	buyer := fmt.Sprint(w)
	for i := range uint64(100_000) {
		hold := holdOf("ticket", buyer, i+1, 1)
		s.mu.Lock()
		s.tried = append(s.tried, hold)
		if len(s.tried) == 300 {
			close(started)
		}
		s.mu.Unlock()
		if _, err := e.place(ctx, hold, buyer); err != nil {
			return
		}
		s.note(s.placed, hold.ID)
		if i%5 == 0 {
			if e.cancelOne(ctx, hold.ID) != nil {
				return
			}
			s.note(s.cancelled, hold.ID)
			continue
		}
		if e.sellOne(ctx, hold.ID) != nil {
			return
		}
		s.note(s.sold, hold.ID)
	}
}

func killInStorm(t *testing.T, server crasher, e *env) {
	e.db.SetMaxOpenConns(16)
	e.open(t, "ticket", 1_000_000)
	s := &storm{placed: map[stock.ID]bool{}, sold: map[stock.ID]bool{}, cancelled: map[stock.ID]bool{}}
	started := make(chan struct{})
	var clients sync.WaitGroup
	for w := range 8 {
		clients.Go(func() { s.run(t.Context(), e, w, started) })
	}
	<-started
	server.Kill()
	clients.Wait()
	server.Restart()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	unknown := 0
	for _, hold := range s.tried {
		record, err := e.Status(ctx, hold.ID)
		switch {
		case errors.Is(err, stock.ErrNotFound):
			if s.placed[hold.ID] {
				t.Errorf("an order that was placed is gone")
			}
		case err != nil:
			t.Fatal(err)
		case s.sold[hold.ID] && record.State != stock.Sold, s.cancelled[hold.ID] && record.State != stock.Cancelled:
			t.Errorf("an order that was sold or cancelled is %v", record.State)
		}
		if err != nil || record.State == stock.Held {
			unknown++
		}
	}
	wantErr(t, "check", e.check(ctx, "ticket"), nil)
	// What was cut off is done again by its ID.
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	var cancelled int64
	for _, hold := range s.tried {
		if record, err := e.Status(ctx, hold.ID); err == nil && record.State == stock.Cancelled {
			cancelled++
			continue
		}
		group.Go(func() error {
			part := hold.ID
			for w := range 8 {
				if buyer := fmt.Sprint(w); stock.NewID("ticket", buyer, part.ClaimPart()) == part {
					if _, err := e.place(ctx, hold, buyer); err != nil {
						return err
					}
				}
			}
			return e.sellOne(ctx, hold.ID)
		})
	}
	wantErr(t, "again", group.Wait(), nil)
	e.audit(t, "ticket", 0, int64(len(s.tried))-cancelled)
	t.Logf("%d orders, %d of them cut off or unsold at the crash", len(s.tried), unknown)
}
