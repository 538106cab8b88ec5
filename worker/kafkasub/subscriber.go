package kafkasub

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Subscriber is a Watermill subscriber of one consumer group.
type Subscriber struct{ inner *kafka.Subscriber }

var _ message.Subscriber = (*Subscriber)(nil)

// New builds a subscriber of a consumer group; nothing is dialled before
// [Subscriber.Subscribe]. All processes that share the work name the same group;
// services that each want every event name different ones.
func New(brokers []string, group string, opts *Options) (*Subscriber, error) {
	if len(brokers) == 0 {
		return nil, errors.New("kafkasub: no brokers")
	}
	if group == "" {
		// Without a group nothing would be committed, and each start would
		// begin anew.
		return nil, errors.New("kafkasub: group is empty")
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	inner, err := kafka.NewSubscriber(kafka.SubscriberConfig{
		Brokers:               brokers,
		ConsumerGroup:         group,
		Unmarshaler:           unmarshaler{o.Unmarshaler},
		OverwriteSaramaConfig: config,
	}, watermill.NewSlogLogger(o.Logger))
	if err != nil {
		return nil, fmt.Errorf("kafkasub: %w", err)
	}
	return &Subscriber{inner}, nil
}

// Subscribe joins the group for the topic. The channel closes when ctx ends or
// the subscriber is closed, after the offsets are committed and the group is
// left. A message's context ends when its offset is marked to be committed.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	messages, err := s.inner.Subscribe(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("kafkasub: subscribe: %w", err)
	}
	return messages, nil
}

// Close ends all subscriptions and waits for them. Closing twice is no error.
func (s *Subscriber) Close() error { return s.inner.Close() }
