package outboxtest_test

import (
	"testing"

	"github.com/firstcome/firstcome/outbox/outboxtest"
)

func TestMemoryConformance(t *testing.T) {
	outboxtest.Run(t, outboxtest.Harness{New: func(*testing.T) outboxtest.Subject {
		m := outboxtest.NewMemory()
		return outboxtest.Subject{Store: m, Begin: func(testing.TB) outboxtest.Tx { return m.Begin() }}
	}})
}
