package streampub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/outbox"
)

// Options of a publisher. The zero value, and nil, mean the defaults.
type Options struct {
	// MaxLen trims each stream to about so many entries, read or not: what a
	// slow consumer has not read by then is lost to it. Default 0: never.
	MaxLen int64
}

var _ outbox.BatchPublisher = (*publisher)(nil)

var errClosed = errors.New("streampub: publisher closed")

// New returns a publisher on a client, which it never closes.
func New(client redis.UniversalClient, opts *Options) (message.Publisher, error) {
	if client == nil {
		return nil, errors.New("streampub: New: client is nil")
	}
	p := &publisher{client: client}
	if opts != nil {
		p.maxLen = opts.MaxLen
	}
	if p.maxLen < 0 {
		return nil, errors.New("streampub: New: Options.MaxLen must not be negative")
	}
	return p, nil
}

type publisher struct {
	client redis.UniversalClient
	maxLen int64
	format redisstream.DefaultMarshallerUnmarshaller
	closed atomic.Bool
}

// Publish implements message.Publisher: all messages or none.
func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	return p.append(messages[0].Context(), topic, messages)
}

// PublishBatch implements [outbox.BatchPublisher]: one trip per topic.
func (p *publisher) PublishBatch(ctx context.Context, batch []*message.Message) []error {
	errs := make([]error, len(batch))
	places := map[string][]int{}
	for i, msg := range batch {
		topic := msg.Metadata[outbox.MetadataTopic]
		places[topic] = append(places[topic], i)
	}
	for topic, at := range places {
		part := make([]*message.Message, len(at))
		for i := range at {
			part[i] = batch[at[i]]
		}
		if err := p.append(ctx, topic, part); err != nil {
			for _, i := range at {
				errs[i] = err
			}
		}
	}
	return errs
}

// Close makes further calls fail; the client stays open. Closing twice is no
// error.
func (p *publisher) Close() error {
	p.closed.Store(true)
	return nil
}

// append adds messages to a topic's stream in one transaction.
func (p *publisher) append(ctx context.Context, topic string, messages []*message.Message) error {
	if p.closed.Load() {
		return outbox.Unavailable(errClosed)
	}
	entries := make([]map[string]any, len(messages))
	for i, msg := range messages {
		values, err := p.format.Marshal(topic, msg)
		if err != nil {
			return outbox.Refused(fmt.Errorf("streampub: message %d of %d: %w", i+1, len(messages), err))
		}
		entries[i] = values
	}
	_, err := p.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, values := range entries {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: topic, Values: values, MaxLen: p.maxLen, Approx: p.maxLen > 0})
		}
		return nil
	})
	if err != nil {
		return verdict(fmt.Errorf("streampub: append: %w", err))
	}
	return nil
}

// verdict marks an error as the topic's own or the server's. Redis begins its
// answers with a word.
func verdict(err error) error {
	text := err.Error()
	for _, word := range []string{"WRONGTYPE", "NOPERM"} {
		if strings.Contains(text, word) {
			return outbox.Refused(err)
		}
	}
	return outbox.Unavailable(err)
}
