package redisstock

import (
	"context"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Confirm implements [stock.Store].
func (s *Store) Confirm(ctx context.Context, id stock.ID, part ...stock.Line) (stock.Hold, error) {
	if len(part) == 0 {
		return s.change(ctx, "confirm", id, "")
	}
	p, err := s.poolOfID(ctx, id)
	if err != nil {
		return stock.Hold{}, err
	}
	units, err := p.opened.Basket(part)
	if err != nil {
		return stock.Hold{}, err
	}
	return s.change(ctx, "confirm", id, amountText(units))
}

// Cancel implements [stock.Store].
func (s *Store) Cancel(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return s.change(ctx, "cancel", id, "")
}

// Extend implements [stock.Store]. The time has to lie within ten years.
func (s *Store) Extend(ctx context.Context, id stock.ID, until time.Time) (stock.Hold, error) {
	if until.IsZero() || until.After(time.Now().Add(10*365*24*time.Hour)) {
		return stock.Hold{}, fmt.Errorf("%w: a hold can't be extended to %v", stock.ErrInvalid, until)
	}
	return s.change(ctx, "extend", id, fmt.Sprint(millis(until)))
}

// Return implements [stock.Store].
func (s *Store) Return(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return s.change(ctx, "return", id, "")
}

// Lookup implements [stock.Store].
func (s *Store) Lookup(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return s.change(ctx, "lookup", id, "")
}

func (s *Store) poolOfID(ctx context.Context, id stock.ID) (*pool, error) {
	if id.ClaimPart() == [16]byte{} {
		return nil, fmt.Errorf("%w: ID is not set", stock.ErrInvalid)
	}
	return s.poolByID(ctx, id)
}

func (s *Store) change(ctx context.Context, step string, id stock.ID, arg string) (stock.Hold, error) {
	p, err := s.poolOfID(ctx, id)
	if err != nil {
		return stock.Hold{}, err
	}
	buyer, claim := id.BuyerPart(), id.ClaimPart()
	frees := step == "cancel" || step == "return" || step == "confirm" && arg != ""
	var r reply
	for {
		r, err = s.call(ctx, p, true, s.scripts.change, 4, step, buyer[:], claim[:], arg)
		if err != nil {
			if frees {
				p.mayReopen(err)
			}
			return stock.Hold{}, err
		}
		if toString(r.rest[0]) != "more" {
			break
		}
		if err := s.makeRoom(ctx, p); err != nil {
			return stock.Hold{}, err
		}
	}
	hold, err := changed(step, p, id, r)
	if err == nil && frees { // where it is a repeat, the first answer may have been lost
		p.reopen()
	}
	return hold, err
}

// changed reads a reply of change.lua.
func changed(step string, p *pool, id stock.ID, r reply) (stock.Hold, error) {
	verdict, letter := toString(r.rest[0]), toString(r.rest[1])
	if verdict == "none" || letter == "" {
		return stock.Hold{}, stock.ErrNotFound
	}
	hold, err := p.hold(id, letter[0], toString(r.rest[2]), toInt(r.rest[3]),
		stock.Hold{Epoch: r.epoch, Seq: r.seq, Repeated: verdict == "again", Replicas: r.replicas})
	if err != nil {
		return stock.Hold{}, err
	}
	switch verdict {
	case "done", "again":
		return hold, nil
	case "nomore":
		return hold, stock.ErrLate
	case "amount":
		if p.items() > 1 {
			return hold, &stock.MismatchError{Field: "lines"}
		}
		return hold, &stock.MismatchError{Field: "quantity"}
	default:
		return hold, forbidden(step, hold.State)
	}
}

// forbidden names why a state does not allow a step.
func forbidden(step string, state stock.State) error {
	if step == "return" {
		return stock.ErrNotConfirmed
	}
	switch state {
	case stock.Sold:
		return stock.ErrConfirmed
	case stock.Expired, stock.Held: // held past its time, and before the ledger
		return stock.ErrExpired
	default:
		return stock.ErrCancelled
	}
}
