package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
)

var errAnswers = errors.New("journal: publisher returned another number of answers than it got messages")

// refusalError is the broker's no to one event.
type refusalError struct {
	event *Event
	err   error
}

func (e *refusalError) Error() string { return e.err.Error() }
func (e *refusalError) Unwrap() error { return e.err }

// send publishes what is left of a page, in order, and stops at the first call
// in which not all was acknowledged: nothing passes an event of its key. After
// trouble one event shows whether it is over.
func (p *pool) send(ctx context.Context, g *page) error {
	size := p.opts.BatchSize
	if p.fails > 0 {
		size = 1
	}
	for left := g.left(); len(left) > 0; size = p.opts.BatchSize {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n := min(size, len(left))
		if err := p.publish(ctx, left[:n]); err != nil {
			return err
		}
		left = left[n:]
	}
	if g.bad != nil {
		return g.bad
	}
	return nil
}

// publish sends some items and marks those that were acknowledged. Of several
// errors a refusal counts, since somebody must see to it.
func (p *pool) publish(ctx context.Context, items []*item) error {
	errs := make([]error, len(items))
	if p.batches != nil {
		p.inOne(items, errs)
	} else {
		p.oneByOne(ctx, items, errs)
	}
	var first error
	var refusal *refusalError
	for i, err := range errs {
		switch {
		case err == nil:
			items[i].acked = true
			p.tel.acknowledged(time.Since(items[i].event.At))
		case errors.Is(err, outbox.ErrSkipped):
			first = cause(first, err)
		case outbox.IsRefused(err):
			p.tel.refused(faultMessage)
			if refusal == nil {
				refusal = &refusalError{event: items[i].event, err: err}
			}
		default:
			p.tel.refused(faultBroker)
			first = cause(first, err)
		}
	}
	if refusal != nil {
		return refusal
	}
	return first
}

// cause keeps the first error that says more than "skipped".
func cause(first, err error) error {
	if first == nil || errors.Is(first, outbox.ErrSkipped) {
		return err
	}
	return first
}

// inOne hands all items to a batch publisher, which stops each key at its first
// refusal.
func (p *pool) inOne(items []*item, errs []error) {
	ctx, cancel := context.WithTimeout(p.hard, p.opts.PublishTimeout)
	defer cancel()
	batch := make([]*message.Message, len(items))
	for i, it := range items {
		m, err := it.event.message(p.topic)
		if err != nil { // can't be: an event is text and numbers
			for j := range errs {
				errs[j] = outbox.ErrSkipped
			}
			errs[i] = outbox.Refused(err)
			return
		}
		m.SetContext(ctx)
		batch[i] = m
	}
	answers := guard(len(items), func() []error { return p.batches.PublishBatch(ctx, batch) })
	if len(answers) != len(errs) {
		for i := range errs {
			errs[i] = errAnswers
		}
		return
	}
	copy(errs, answers)
}

// oneByOne publishes keys in parallel and each key's items one after the other.
// After the first refusal of any key, and after ctx has ended, no call is begun.
func (p *pool) oneByOne(ctx context.Context, items []*item, errs []error) {
	for i := range errs {
		errs[i] = outbox.ErrSkipped
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	lines := make(chan []int, len(items))
	for _, line := range byKey(items) {
		lines <- line
	}
	close(lines)
	var all sync.WaitGroup
	for range min(p.opts.Concurrency, len(lines)) {
		all.Go(func() {
			for line := range lines {
				for _, i := range line {
					if ctx.Err() != nil {
						return
					}
					if errs[i] = p.one(items[i]); errs[i] != nil {
						stop()
						return
					}
				}
			}
		})
	}
	all.Wait()
}

// byKey returns the places of each key's items.
func byKey(items []*item) [][]int {
	var lines [][]int
	at := map[string]int{}
	for i, it := range items {
		key := it.event.Key()
		n, ok := at[key]
		if !ok {
			n = len(lines)
			at[key] = n
			lines = append(lines, nil)
		}
		lines[n] = append(lines[n], i)
	}
	return lines
}

func (p *pool) one(it *item) error {
	ctx, cancel := context.WithTimeout(p.hard, p.opts.PublishTimeout)
	defer cancel()
	m, err := it.event.message(p.topic)
	if err != nil {
		return outbox.Refused(err)
	}
	m.SetContext(ctx)
	return guard(1, func() []error { return []error{p.publisher.Publish(p.topic, m)} })[0]
}

// guard makes a refusal of a panic in the publisher: the relay goes on.
func guard(n int, call func() []error) (errs []error) {
	defer func() {
		if v := recover(); v != nil {
			errs = make([]error, n)
			for i := range errs {
				errs[i] = outbox.Refused(fmt.Errorf("journal: publisher panicked: %v", v))
			}
		}
	}()
	return call()
}
