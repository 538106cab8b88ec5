// Package stock promises at most as many units as there are, for a while, to
// the buyers who come first.
//
// A [Store] (package redisstock) answers reservations in one atomic step each;
// a [Ledger] (package sqlledger) keeps in SQL what was promised and sold, and
// refuses to sell more than there is even when the store has lost its memory.
//
// # Promise
//
//   - No unit is sold twice: free + held + sold = total after every step, and
//     the ledger counts again on its own.
//   - None is stranded: a hold that is neither confirmed nor cancelled ends at
//     its time, and the next reservation takes the unit in the same call; no
//     sweeper has to run for it.
//   - A repeat finds what the first try did: the caller makes the [ID] before
//     the attempt, and the same ID is answered with the recorded reservation
//     in its state now.
//
// # Limits of the promise
//
//   - A call has three outcomes: done, not done (the errors of this package),
//     unknown (any other error). After an unknown one try again with the same
//     ID; never treat it as a no.
//   - The store remembers finished IDs for its retention (a day by default).
//     The ledger's row of an order stays longer.
//   - A store that lost writes is fenced as soon as a process notices: by the
//     epoch, or by a sequence number lower than one seen. A loss that nobody
//     noticed is caught by the ledger alone, when the sale is made final; so is
//     one that was noticed by few while the others sold on past the highest
//     number that those few had seen. Without a ledger nothing catches it.
//   - One pool lives on one Redis slot. What is in two pools can't be reserved
//     together.
//
// # Smallest use
//
//	store, err := redisstock.New(client, nil, redisstock.JournalOff, nil)
//	...
//	_, err = store.Open(ctx, stock.Pool{SKU: "ticket", Total: 1000, Limit: 1})
//	hold, err := store.Reserve(ctx, stock.Request{
//		ID: stock.NewID("ticket", buyer, claim), SKU: "ticket", Buyer: buyer, Quantity: 1,
//	})
//	switch {
//	case err == nil: // held until hold.Expires
//	case errors.Is(err, stock.ErrSoldOut): // final
//	case errors.Is(err, stock.ErrAllHeld): // ask again later
//	}
//	hold, err = store.Confirm(ctx, hold.ID)
package stock
