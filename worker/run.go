package worker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
)

// run is the state of one [Worker.Run].
type run struct {
	w     *Worker
	log   *slog.Logger
	gate  *gate
	lanes *lanes
	acks  *acks
	slots chan struct{} // one token per running handler

	// The three steps of a stop, each ending later than the one before.
	stopping     chan struct{}      // no new events, no new attempts
	aborting     context.Context    // cancels the handlers
	abort        context.CancelFunc //
	subscription context.Context    // ends the subscriptions
	unsubscribe  context.CancelFunc //

	intake     sync.WaitGroup // one loop per topic
	subscribed atomic.Int32   // topics with a live subscription
	topics     map[string][]*handler
	watches    map[*handler]*watch
	poison     *handler // stands for all, where the envelope is at fault
	requeues   *requeues
}

func newRun(ctx context.Context, w *Worker) *run {
	r := &run{
		w:        w,
		log:      w.opts.Logger,
		gate:     newGate(w.opts.MaxInFlight, w.opts.MaxBytesInFlight),
		acks:     newAcks(w.opts.MaxInFlight),
		slots:    make(chan struct{}, w.opts.Concurrency),
		stopping: make(chan struct{}),
		topics:   w.handlers, // register refuses more from now on
		poison:   &handler{try: func(_ context.Context, t *task) error { return t.d.fault }},
	}
	r.watches = map[*handler]*watch{r.poison: newWatch(w, r.poison)}
	for _, handlers := range r.topics {
		for _, h := range handlers {
			r.watches[h] = newWatch(w, h)
		}
	}
	r.lanes = newLanes(r.finish)
	r.requeues = newRequeues(r.topics)
	// Cancelling Run's context must not reach handlers or subscriptions: the
	// drain decides when they end.
	base := context.WithoutCancel(ctx)
	r.aborting, r.abort = context.WithCancel(base)
	r.subscription, r.unsubscribe = context.WithCancel(base)
	return r
}

func (r *run) start() {
	for topic := range r.topics {
		r.intake.Go(func() { r.consume(topic) })
	}
	if r.w.letters != nil {
		r.intake.Go(r.runLetters)
	}
}

func (r *run) isStopping() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// admit takes a message in; false when the stop came first. The message is then
// left alone: not acknowledged, it will be delivered again.
func (r *run) admit(topic string, msg *message.Message) bool {
	d := newDelivery(topic, msg)
	if !r.gate.enter(d.size, r.stopping, msg.Context().Done()) {
		return !r.isStopping()
	}
	handlers := r.topics[topic]
	if d.fault != nil {
		handlers = []*handler{r.poison}
	}
	tasks := make([]*task, len(handlers))
	for i, h := range handlers {
		tasks[i] = &task{d: d, handler: h}
	}
	d.pending.Store(int64(len(tasks)))
	r.w.telemetry.inFlight.Add(context.Background(), 1)
	if !r.lanes.add(tasks) {
		r.release(d)
		return false
	}
	return true
}

// finish brings one task to its end and, with the last of the message,
// acknowledges it.
func (r *run) finish(t *task) {
	done := r.work(t)
	r.letGo(t, done)
	if !done {
		t.d.givenUp.Store(true)
	}
	if t.d.pending.Add(-1) > 0 {
		return
	}
	r.release(t.d)
	if !t.d.givenUp.Load() {
		r.acks.follow(t.d.msg.Context())
		t.d.msg.Ack()
	}
}

func (r *run) release(d *delivery) {
	r.gate.leave(d.size)
	r.w.telemetry.inFlight.Add(context.Background(), -1)
}
