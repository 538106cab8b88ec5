package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Worker hands the events of a broker to typed handlers. Build it with [New],
// register with [Handle] and [HandleTx], then call [Worker.Run].
type Worker struct {
	subscriber message.Subscriber
	inbox      Inbox
	dead       DeadLetter
	letters    LetterStore // dead, where it is one
	taker      string      // our hand in it
	opts       Options
	telemetry  *telemetry
	// sharedLetters is letters, where the inbox's transactions reach it.
	sharedLetters txLetters

	mu       sync.Mutex
	handlers map[string][]*handler // by topic, in order of registration
	names    map[string]bool
	started  bool

	run atomic.Pointer[run] // nil before Run
}

// New builds a worker on a Watermill subscriber. The subscriber stays the
// caller's to close, after [Worker.Run] returned.
//
// A nil inbox is a decision: each handler then runs at least once per event, and
// [HandleTx] is refused. deadLetter is required, [DeadLetterTo] is one; the
// letters of a [LetterStore] can be run again.
func New(subscriber message.Subscriber, inbox Inbox, deadLetter DeadLetter, opts *Options) (*Worker, error) {
	if subscriber == nil {
		return nil, errors.New("worker: subscriber is nil")
	}
	if deadLetter == nil {
		return nil, errors.New("worker: deadLetter is nil: DeadLetterTo(publisher) makes one")
	}
	o := opts.withDefaults()
	letters, _ := deadLetter.(LetterStore)
	if err := errors.Join(o.validate(), o.checkRetention("inbox", inbox), o.checkRetention("dead letter store", letters)); err != nil {
		return nil, err
	}
	tel, err := newTelemetry(&o)
	if err != nil {
		return nil, err
	}
	return &Worker{
		subscriber:    subscriber,
		inbox:         inbox,
		dead:          deadLetter,
		letters:       letters,
		taker:         newTaker(),
		sharedLetters: sharedLetters(inbox, letters),
		opts:          o,
		telemetry:     tel,
		handlers:      map[string][]*handler{},
		names:         map[string]bool{},
	}, nil
}

func (w *Worker) register(h *handler) error {
	if err := checkName(h.name); err != nil {
		return err
	}
	if h.topic == "" {
		return fmt.Errorf("worker: handler %q: topic is empty", h.name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started {
		return fmt.Errorf("worker: handler %q: %w", h.name, ErrStarted)
	}
	if w.names[h.name] {
		return fmt.Errorf("worker: handler %q: the name is taken; the inbox tells handlers apart by it", h.name)
	}
	if w.letters != nil {
		h.try = w.withLetters(h.try)
	}
	w.names[h.name] = true
	w.handlers[h.topic] = append(w.handlers[h.topic], h)
	return nil
}

// checkName keeps names to what every inbox and every header can hold.
func checkName(name string) error {
	if name == "" || len(name) > 100 {
		return fmt.Errorf("worker: handler name %q: must have 1 to 100 bytes", name)
	}
	for _, r := range name {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("worker: handler name %q: must be printable ASCII without spaces", name)
		}
	}
	return nil
}

// Ready reports whether the worker is taking events from every topic. It is
// false before [Worker.Run], while a subscription is lost, and from the moment a
// stop begins.
func (w *Worker) Ready() bool {
	r := w.run.Load()
	return r != nil && !r.isStopping() && int(r.subscribed.Load()) == len(r.topics)
}

// Run subscribes and works until ctx ends, then drains: it takes no more
// events; handlers that run may finish, for [Options.Grace], with their context
// whole; then their context is cancelled. What finished is acknowledged, what
// did not will be delivered again; a stop counts no attempt and makes no dead
// letter.
//
// It returns nil after a drain, and an error that is [ErrStillRunning] where
// handlers ignored the end of their context. A subscription that fails or ends
// by itself is renewed, with growing delays. Run is called once.
func (w *Worker) Run(ctx context.Context) error {
	w.mu.Lock()
	if w.started {
		w.mu.Unlock()
		return ErrStarted
	}
	w.started = true
	topics := len(w.handlers)
	w.mu.Unlock()
	if topics == 0 {
		return errors.New("worker: no handlers: register with Handle or HandleTx before Run")
	}
	r := newRun(ctx, w)
	w.run.Store(r)
	r.start()
	<-ctx.Done()
	return r.drain()
}
