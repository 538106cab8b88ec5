// Package outboxtest holds what every [outbox.Store] must do, as a suite that
// a driver runs in a few lines:
//
//	func TestConformance(t *testing.T) {
//		outboxtest.Run(t, outboxtest.Harness{New: func(t *testing.T) outboxtest.Subject { … }})
//	}
//
// Beside it stand [Memory], a store without a database for tests of an
// application, and [Recorder], a publisher that remembers what it was given.
package outboxtest
