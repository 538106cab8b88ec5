package streamsub

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/redisscript"
)

// Subscriber is a Watermill subscriber of one consumer group.
type Subscriber struct {
	client  redis.UniversalClient
	scripts *redisscript.Runner
	group   string
	opts    Options
	log     watermill.LoggerAdapter

	closing context.Context
	close   context.CancelFunc

	mu        sync.Mutex
	closed    bool
	consumers map[string]bool // names of the live subscriptions
	running   sync.WaitGroup
}

var _ message.Subscriber = (*Subscriber)(nil)

// New builds a subscriber of a consumer group. Processes that share the work
// name the same group; services that each want every event name different ones.
// The client stays the caller's to close.
func New(client redis.UniversalClient, group string, opts *Options) (*Subscriber, error) {
	if client == nil {
		return nil, errors.New("streamsub: client is nil")
	}
	if group == "" {
		return nil, errors.New("streamsub: group is empty")
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Subscriber{
		client:    client,
		scripts:   redisscript.NewRunner(client, nil),
		group:     group,
		opts:      o,
		log:       watermill.NewSlogLogger(o.Logger),
		consumers: map[string]bool{},
	}
	s.closing, s.close = context.WithCancel(context.Background())
	return s, nil
}

// Subscribe reads the topic, a stream's key, as a consumer of the group. The
// channel closes when ctx ends or the subscriber is closed, after what was not
// begun is handed back. A message's context ends when its entry is acknowledged
// on the server.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	c := newConsumer(s, topic)
	if err := s.enter(c.name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.closing, cancel)
	end := func() { stop(); cancel(); s.leave(c.name) }

	if err := c.prepare(ctx); err != nil {
		end()
		return nil, fmt.Errorf("streamsub: subscribe: %w", err)
	}
	// It is ended by ctx; its Close would close the client, which is not ours.
	inner, err := redisstream.NewSubscriber(c.config(), s.log)
	if err != nil {
		end()
		return nil, fmt.Errorf("streamsub: %w", err)
	}
	received, err := inner.Subscribe(ctx, topic)
	if err != nil {
		end()
		return nil, fmt.Errorf("streamsub: subscribe: %w", err)
	}
	out := make(chan *message.Message)
	go func() {
		defer end()
		defer close(out)
		c.forward(ctx, cancel, received, out)
	}()
	return out, nil
}

// Close ends all subscriptions and waits for them. Closing twice is no error.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.close()
	s.running.Wait()
	return nil
}

func (s *Subscriber) enter(consumer string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("streamsub: closed")
	}
	s.consumers[consumer] = true
	s.running.Add(1)
	return nil
}

func (s *Subscriber) leave(consumer string) {
	s.mu.Lock()
	delete(s.consumers, consumer)
	s.mu.Unlock()
	s.running.Done()
}

// isOurs reports whether a consumer is a live subscription of this process.
func (s *Subscriber) isOurs(consumer string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.consumers[consumer]
}
