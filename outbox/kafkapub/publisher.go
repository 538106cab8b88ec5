package kafkapub

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/outbox"
)

// Options of a publisher. The zero value, and nil, mean the defaults.
type Options struct {
	// ClientID: default "firstcome".
	ClientID string

	// Timeout bounds one try: reaching a broker, and its answer. Tries are three,
	// so keep three times it below the relay's PublishTimeout where a late
	// answer matters. Default 1.5 s.
	Timeout time.Duration

	// MaxMessageBytes is the largest record. A larger message is refused here,
	// and parked in the end. Default 1,000,000, just below the brokers' own
	// default.
	MaxMessageBytes int

	// TLS, when set, is used for all connections.
	TLS *tls.Config

	// User and Password, when set, log in by SASL PLAIN: only over TLS.
	User, Password string

	// Sarama may change further settings (SCRAM, OAuth, compression) before
	// those that the outbox needs are put on top.
	Sarama func(*sarama.Config)

	// Logger: default slog.Default(); watermill-kafka logs below Info only.
	Logger *slog.Logger
}

var errClosed = errors.New("kafkapub: publisher closed")

// New returns a publisher. It connects with the first message, so that a broker
// that is away does not keep the application from starting; until it is there,
// messages stay in the outbox.
func New(brokers []string, opts *Options) (message.Publisher, error) {
	if len(brokers) == 0 {
		return nil, errors.New("kafkapub: New: brokers is empty")
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	config, err := o.config()
	if err != nil {
		return nil, fmt.Errorf("kafkapub: New: %w", err)
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.Default()
	}
	return &publisher{config: kafka.PublisherConfig{
		Brokers: brokers, Marshaler: marshaler{}, OverwriteSaramaConfig: config,
	}, logger: watermill.NewSlogLogger(logger)}, nil
}

func (o *Options) config() (*sarama.Config, error) {
	if o.Timeout < 0 {
		return nil, errors.New("Options.Timeout must not be negative")
	}
	if o.MaxMessageBytes < 0 {
		return nil, errors.New("Options.MaxMessageBytes must not be negative")
	}
	if (o.User != "") && o.TLS == nil {
		return nil, errors.New("Options.User: SASL PLAIN sends the password as it is, set TLS")
	}
	c := sarama.NewConfig()
	c.ClientID = "firstcome"
	if o.ClientID != "" {
		c.ClientID = o.ClientID
	}
	c.Producer.MaxMessageBytes = 1_000_000
	if o.MaxMessageBytes > 0 {
		c.Producer.MaxMessageBytes = o.MaxMessageBytes
	}
	o.times(c)
	if o.TLS != nil {
		c.Net.TLS.Enable, c.Net.TLS.Config = true, o.TLS
	}
	if o.User != "" {
		c.Net.SASL.Enable, c.Net.SASL.User, c.Net.SASL.Password = true, o.User, o.Password
	}
	if o.Sarama != nil {
		o.Sarama(c)
	}
	promise(c)
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

func (o *Options) times(c *sarama.Config) {
	try := 1500 * time.Millisecond
	if o.Timeout > 0 {
		try = o.Timeout
	}
	c.Net.DialTimeout, c.Net.ReadTimeout, c.Net.WriteTimeout = try, try, try
	c.Producer.Timeout = try
	c.Producer.Retry.Max, c.Producer.Retry.Backoff = 2, 50*time.Millisecond
	c.Metadata.Retry.Max, c.Metadata.Retry.Backoff = 1, 50*time.Millisecond
	c.Metadata.Timeout = try
}

// promise sets what at-least-once and order per key stand on.
func promise(c *sarama.Config) {
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	c.Producer.Return.Successes, c.Producer.Return.Errors = true, true
	c.Producer.Partitioner = sarama.NewMurmur2Partitioner
	if !c.Version.IsAtLeast(sarama.V2_1_0_0) {
		c.Version = sarama.V2_1_0_0
	}
	c.Producer.Retry.Max = max(1, c.Producer.Retry.Max)
}

// publisher connects on first use.
type publisher struct {
	config kafka.PublisherConfig
	logger watermill.LoggerAdapter

	mu     sync.Mutex
	inner  *kafka.Publisher
	closed bool
}

// Publish implements message.Publisher. Messages of one call go one after the
// other; it stops at the first that was not acknowledged. Each carries
// [outbox.MetadataKey]; without it, the partition is any.
func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	inner, err := p.connect()
	if err != nil {
		return err
	}
	if err := inner.Publish(topic, messages...); err != nil {
		return verdict(err)
	}
	return nil
}

func (p *publisher) connect() (*kafka.Publisher, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, outbox.Unavailable(errClosed)
	}
	if p.inner == nil {
		inner, err := kafka.NewPublisher(p.config, p.logger)
		if err != nil {
			return nil, outbox.Unavailable(fmt.Errorf("kafkapub: connect: %w", err))
		}
		p.inner = inner
	}
	return p.inner, nil
}

// Close ends the connections. Closing twice is no error.
func (p *publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	if p.inner == nil {
		return nil
	}
	return p.inner.Close()
}

// marshaler is Watermill's default one, with the record's key.
type marshaler struct{ kafka.DefaultMarshaler }

func (m marshaler) Marshal(topic string, msg *message.Message) (*sarama.ProducerMessage, error) {
	record, err := m.DefaultMarshaler.Marshal(topic, msg)
	if err != nil {
		return nil, err // a header of Watermill's own name; Message.Validate has refused it
	}
	if key := msg.Metadata[outbox.MetadataKey]; key != "" {
		record.Key = sarama.StringEncoder(key)
	}
	return record, nil
}
