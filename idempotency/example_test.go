package idempotency_test

import (
	"context"
	"fmt"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
)

// A payment that is asked for twice is made once. In a service the store is
// redisidem's or an SQL one; idemtest's is for examples like this.
func ExampleKeeper_Do() {
	hashKey := []byte("32 secret bytes, from your vault")
	keeper, err := idempotency.New(idemtest.NewMemory(nil), hashKey, idempotency.Rerun, nil)
	if err != nil {
		panic(err)
	}
	for range 2 {
		result, err := keeper.Do(context.Background(), "buyer-7", "key-1", []byte("100 EUR"),
			func(_ context.Context, claim *idempotency.Claim) ([]byte, error) {
				// claim.ID() is what makes this repeatable: hand it to the provider.
				return []byte("receipt 1"), nil
			})
		fmt.Printf("%s, replayed: %v, error: %v\n", result.Bytes, result.Replayed, err)
	}
	_, err = keeper.Do(context.Background(), "buyer-7", "key-1", []byte("999 EUR"), nil)
	fmt.Println(err)
	// Output:
	// receipt 1, replayed: false, error: <nil>
	// receipt 1, replayed: true, error: <nil>
	// idempotency: key was used with another payload
}

// Where an operation can't be repeated, nothing runs until somebody knows what
// became of an attempt that died.
func ExampleRefuse() {
	paid := map[idempotency.ClaimID]string{} // what the payment provider knows
	policy := idempotency.Refuse(func(_ context.Context, claim *idempotency.Claim) (idempotency.Verdict, error) {
		if receipt, ok := paid[claim.ID()]; ok {
			return idempotency.Happened([]byte(receipt)), nil
		}
		return idempotency.DidNotHappen(), nil
	})
	keeper, err := idempotency.New(idemtest.NewMemory(nil), []byte("32 secret bytes, from your vault"), policy, nil)
	if err != nil {
		panic(err)
	}
	pay := func(_ context.Context, claim *idempotency.Claim) ([]byte, error) {
		paid[claim.ID()] = "receipt 1"
		return nil, fmt.Errorf("connection lost") // paid, but we did not hear it
	}
	for range 2 {
		result, err := keeper.Do(context.Background(), "buyer-7", "key-1", nil, pay)
		fmt.Printf("%q %v\n", result.Bytes, err)
	}
	// Output:
	// "" connection lost
	// "receipt 1" <nil>
}
