package idemtest_test

import (
	"testing"

	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/idempotency/idemtest"
)

func TestConformance(t *testing.T) {
	store := func(*testing.T) idempotency.Store { return idemtest.NewMemory(nil) }
	idemtest.Run(t, idemtest.Harness{New: store, Bubble: store})
}
