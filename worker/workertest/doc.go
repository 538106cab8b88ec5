// Package workertest holds the suites that implementations around package worker
// pass: [Inbox] for inboxes with transactions, [Subscriber] for subscribers.
//
//	func TestInbox(t *testing.T) {
//		workertest.Inbox(t, func(t *testing.T) workertest.InboxParts { … })
//	}
//
// They import package testing: for tests only.
package workertest
