package redisstock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Confirm implements [stock.Store].
func (s *Store) Confirm(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return s.change(ctx, "confirm", id)
}

// Cancel implements [stock.Store].
func (s *Store) Cancel(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return s.change(ctx, "cancel", id)
}

// Return implements [stock.Store].
func (s *Store) Return(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return s.change(ctx, "return", id)
}

// Lookup implements [stock.Store].
func (s *Store) Lookup(ctx context.Context, id stock.ID) (stock.Hold, error) {
	return s.change(ctx, "lookup", id)
}

func (s *Store) change(ctx context.Context, step string, id stock.ID) (stock.Hold, error) {
	if id.ClaimPart() == [16]byte{} {
		return stock.Hold{}, fmt.Errorf("%w: ID is not set", stock.ErrInvalid)
	}
	p, err := s.poolByID(ctx, id)
	if err != nil {
		return stock.Hold{}, err
	}
	buyer, claim := id.BuyerPart(), id.ClaimPart()
	r, err := s.call(ctx, p, true, s.scripts.change, step, buyer[:], claim[:])
	if err != nil {
		return stock.Hold{}, err
	}
	if len(r.rest) < 4 {
		return stock.Hold{}, errors.New("redisstock: short reply")
	}
	hold, err := changed(step, toString(r.rest[0]), p, id, r)
	if err == nil && !hold.Repeated && (step == "cancel" || step == "return") {
		p.reopen()
	}
	return hold, err
}

func changed(step, verdict string, p *pool, id stock.ID, r reply) (stock.Hold, error) {
	letter := toString(r.rest[1])
	hold := stock.Hold{ID: id, SKU: p.sku, Quantity: toInt(r.rest[2]), Epoch: r.epoch, Seq: r.seq, Repeated: verdict == "again"}
	if letter != "" {
		hold.State = stateOf(letter[0])
	}
	hold.Expires = time.UnixMilli(toInt(r.rest[3]))
	switch verdict {
	case "done", "again":
		return hold, nil
	case "none":
		return stock.Hold{}, stock.ErrNotFound
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
	case stock.Expired:
		return stock.ErrExpired
	default:
		return stock.ErrCancelled
	}
}
