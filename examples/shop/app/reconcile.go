package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/worker"
)

// reconciler finishes the orders that nobody else does: their hold has ended,
// time for delivery has passed, and something is left to do, since the event
// became a dead letter or the outbox parked it, or a broker lost it.
//
// It asks the ledger, whose row decides between it and a worker that is at the
// same order in the same moment:
//
//	ledger says     it does
//	sold            confirms and captures, as the worker would
//	ended           cancels the order and voids the payment
//	held, lose      ends it in the ledger (stock.Ledger.Expire), then as above
//	held, keep      requeues the event; cancels where it was dropped or lost
//	undecided       nothing: an order's transaction is still open
//
// Each step is safe to repeat and to run beside itself and beside workers. Where
// the order is finished its dead letter is dropped: nothing is left to run. An
// event that the outbox has parked is put back, and the worker finds the order
// as it is.
type reconciler struct {
	sku      string
	every    time.Duration
	patience time.Duration
	ledger   stock.Ledger
	checkout *checkout
	letters  worker.LetterStore
	parked   worker.LetterOperator

	after Order // where the next round begins
}

const (
	overduePage  = 100              // orders looked at in one step
	overduePages = 10               // steps of one round
	roundTime    = 30 * time.Second // of one round, at most
	parkedMost   = 1000             // parked messages looked at in one round
	slowestAgain = time.Hour        // between two requeues of one letter

	// lostAfter is when an event that is nowhere to be found comes no more: as
	// long as Kafka keeps it by default.
	lostAfter = 7 * 24 * time.Hour
)

// Run looks for overdue orders until ctx ends; it then returns nil.
func (r *reconciler) Run(ctx context.Context) error {
	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, roundTime)
		if err := r.round(bounded); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "shop: reconciling failed, trying again later", "error", err)
		}
		cancel()
	}
}

// round looks at the overdue orders, or at the next some of them: those that it
// cannot finish yet never keep it from the others.
func (r *reconciler) round(ctx context.Context) error {
	var parked map[string]worker.StoredLetter
	var failed failures
	for range overduePages {
		page, err := r.checkout.orders.overdue(ctx, r.sku, time.Now().Add(-r.patience), r.after, overduePage)
		if err != nil {
			return err
		}
		if len(page) > 0 && parked == nil {
			if parked, err = r.readParked(ctx); err != nil {
				return err
			}
		}
		if err := r.settleAll(ctx, page, parked, &failed); err != nil {
			return err
		}
		if len(page) < overduePage {
			r.after = Order{}
			break
		}
	}
	return failed.err()
}

// failures are counted, and the first is told: an outage fails them all alike.
type failures struct {
	n     int
	first error
}

func (f *failures) add(id string, err error) {
	if err == nil {
		return
	}
	if f.n++; f.n == 1 {
		f.first = fmt.Errorf("order %s: %w", id, err)
	}
}

func (f *failures) err() error {
	if f.n <= 1 {
		return f.first
	}
	return fmt.Errorf("%d orders, the first: %w", f.n, f.first)
}

// settleAll asks the ledger about all orders at once and does what it says.
func (r *reconciler) settleAll(ctx context.Context, page []Order, parked map[string]worker.StoredLetter, failed *failures) error {
	if len(page) == 0 {
		return nil
	}
	last := page[len(page)-1]
	verdicts, err := r.ask(ctx, page)
	if err != nil {
		r.after = Order{}
		if len(page) == overduePage {
			r.after = last
		}
		return err
	}
	for i := range page {
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), failed.err())
		}
		r.after = page[i] // the next round begins behind the one that takes too long
		failed.add(page[i].ID, r.visit(ctx, &page[i], verdicts[i], parked))
	}
	return nil
}

func (r *reconciler) visit(ctx context.Context, o *Order, verdict stock.Verdict, parked map[string]worker.StoredLetter) error {
	if err := r.unpark(ctx, o, parked); err != nil {
		return err
	}
	return r.settle(ctx, o, verdict)
}

// ask returns the ledger's verdicts. What it shows as held until later (its hold
// was extended) stays undecided.
func (r *reconciler) ask(ctx context.Context, page []Order) ([]stock.Verdict, error) {
	ids := make([]stock.ID, len(page))
	for i := range page {
		ids[i] = page[i].Reservation
	}
	entries, err := r.ledger.Find(ctx, r.sku, ids)
	if err != nil {
		return nil, fmt.Errorf("ask the ledger: %w", err)
	}
	verdicts := make([]stock.Verdict, len(page))
	var due []stock.ID
	var places []int
	for i, e := range entries {
		if e.State == stock.Held && time.Since(e.Expires) < r.patience {
			continue
		}
		due, places = append(due, ids[i]), append(places, i)
	}
	if len(due) == 0 {
		return verdicts, nil
	}
	got, err := r.ledger.Expire(ctx, r.sku, due)
	if err != nil {
		return nil, fmt.Errorf("ask the ledger: %w", err)
	}
	for i, v := range got {
		verdicts[places[i]] = v
	}
	return verdicts, nil
}

func (r *reconciler) settle(ctx context.Context, o *Order, verdict stock.Verdict) error {
	p := placed{OrderID: o.ID, Reservation: o.Reservation, SKU: o.SKU, Quantity: o.Quantity}
	switch verdict {
	case stock.IsSold:
		return r.end(ctx, o, r.checkout.complete(ctx, p))
	case stock.Free:
		return r.end(ctx, o, r.checkout.giveUp(ctx, p))
	case stock.Keep:
		lost, err := r.revive(ctx, o)
		if err != nil || !lost {
			return err
		}
		return r.end(ctx, o, r.checkout.giveUp(ctx, p))
	default:
		return nil
	}
}

// end drops the letter of an order that is finished and notes that it is.
func (r *reconciler) end(ctx context.Context, o *Order, err error) error {
	if err != nil {
		return err
	}
	l, err := r.letters.Find(ctx, handlerName, eventID(o.Reservation))
	if err == nil && l.State != worker.LetterDropped {
		err = r.letters.Drop(ctx, l.Seq)
	}
	// One that is running finds the order finished.
	if err != nil && !errors.Is(err, worker.ErrNoLetter) && !errors.Is(err, worker.ErrLetterRunning) {
		return err
	}
	if err := r.checkout.orders.settle(ctx, o.ID); err != nil {
		return err
	}
	slog.InfoContext(ctx, "shop: an overdue order is finished", "order", o.ID, "letter", l.Seq, "class", l.Class)
	return nil
}

// revive has the event of an order that keeps its units run again. It reports
// that the event is lost where nobody will deliver it any more.
func (r *reconciler) revive(ctx context.Context, o *Order) (lost bool, err error) {
	l, err := r.letters.Find(ctx, handlerName, eventID(o.Reservation))
	switch {
	case errors.Is(err, worker.ErrNoLetter): // on its way
		return time.Since(o.Expires) > lostAfter, nil
	case err != nil:
		return false, err
	case l.State == worker.LetterDropped:
		return true, nil
	case l.State == worker.LetterRequeued || l.Age < r.again(l.Requeues):
		return false, nil
	}
	err = r.letters.Requeue(ctx, l.Seq)
	switch {
	case errors.Is(err, worker.ErrRequeued), errors.Is(err, worker.ErrNoLetter): // another was faster
		return false, nil
	case errors.Is(err, worker.ErrNotRequeueable):
		return true, nil
	}
	return false, err
}

// again is how long a letter lies before it is requeued for the next time.
func (r *reconciler) again(requeues int) time.Duration {
	if requeues == 0 {
		return 0
	}
	return min(slowestAgain, r.every<<min(requeues, 20))
}

// unpark puts a parked event back into the outbox. Messages held behind it
// follow.
func (r *reconciler) unpark(ctx context.Context, o *Order, parked map[string]worker.StoredLetter) error {
	l, ok := parked[eventID(o.Reservation)]
	if !ok || l.Class != fxmodule.ClassParked || l.Age < r.patience {
		return nil
	}
	if err := r.parked.Requeue(ctx, l.Seq); err != nil && !errors.Is(err, worker.ErrNoLetter) {
		return err
	}
	return nil
}

func (r *reconciler) readParked(ctx context.Context) (map[string]worker.StoredLetter, error) {
	found := map[string]worker.StoredLetter{}
	for after := int64(0); len(found) < parkedMost; {
		page, err := r.parked.Letters(ctx, worker.LetterQuery{After: after, Limit: 200})
		if err != nil {
			return nil, fmt.Errorf("read parked messages: %w", err)
		}
		if len(page) == 0 {
			break
		}
		for i := range page {
			found[page[i].EventID], after = page[i], page[i].Seq
		}
	}
	return found, nil
}
