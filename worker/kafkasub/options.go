package kafkasub

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
)

// Options of a [Subscriber]. The zero value, and nil, are the documented defaults.
type Options struct {
	// ClientID names this program in the broker's logs. Default "firstcome".
	ClientID string
	// SessionTimeout is how long a member may be silent before the group goes on
	// without it: the time until others take over from a process that was
	// killed. The broker's own bounds hold, 6 s to 30 min unless configured.
	// Default 10 s; heartbeats are sent at a quarter of it.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long a rebalance waits for messages in flight. It
	// must exceed the longest run of a handler, retries included, lest two
	// members work on one partition at the same time. Default 60 s.
	RebalanceTimeout time.Duration
	// CommitEvery is how often the offsets of acknowledged messages are committed.
	// A process that is killed has what it acknowledged since then delivered
	// again, for the inbox to tell. Default 200 ms.
	CommitEvery time.Duration
	// Unmarshaler reads records; its errors and panics become messages with
	// worker.MetaUndecodable. Default kafka.DefaultMarshaler.
	Unmarshaler kafka.Unmarshaler
	// Configure edits the client's configuration: TLS, SASL, fetch sizes. What
	// this package promises is set after it. Default nil.
	Configure func(*sarama.Config)
	// Logger receives Watermill's log. Default slog.Default().
	Logger *slog.Logger
}

func (o *Options) withDefaults() (Options, error) {
	out := Options{}
	if o != nil {
		out = *o
	}
	if out.ClientID == "" {
		out.ClientID = "firstcome"
	}
	if out.SessionTimeout == 0 {
		out.SessionTimeout = 10 * time.Second
	}
	if out.RebalanceTimeout == 0 {
		out.RebalanceTimeout = time.Minute
	}
	if out.CommitEvery == 0 {
		out.CommitEvery = 200 * time.Millisecond
	}
	if out.Unmarshaler == nil {
		out.Unmarshaler = kafka.DefaultMarshaler{}
	}
	if out.Logger == nil {
		out.Logger = slog.Default()
	}
	switch {
	case out.SessionTimeout < time.Second:
		return out, fmt.Errorf("kafkasub: Options.SessionTimeout is %v: must be at least 1 s", out.SessionTimeout)
	case out.CommitEvery < time.Millisecond:
		return out, fmt.Errorf("kafkasub: Options.CommitEvery is %v: must be at least 1 ms", out.CommitEvery)
	case out.RebalanceTimeout < out.SessionTimeout:
		return out, errors.New("kafkasub: Options.RebalanceTimeout is shorter than SessionTimeout")
	}
	return out, nil
}

// config is sarama's configuration with what the promise stands on.
func (o *Options) config() (*sarama.Config, error) {
	c := sarama.NewConfig()
	if o.Configure != nil {
		o.Configure(c)
	}
	c.ClientID = o.ClientID
	if !c.Version.IsAtLeast(sarama.V2_1_0_0) { // the oldest that Kafka 4 still speaks
		c.Version = sarama.V2_1_0_0
	}
	// A group without offsets starts at the beginning: events written before
	// the first start are events too.
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	// Offsets are marked when a message was acknowledged, and only marks are
	// committed: by the clock, at a rebalance and at the end. A commit for each
	// message would wait behind the fetch under way, which shares its connection
	// and is held by the broker until there is something to fetch: measured, 150
	// to 200 ms per message.
	c.Consumer.Offsets.AutoCommit.Enable = true
	c.Consumer.Offsets.AutoCommit.Interval = o.CommitEvery
	c.Consumer.Return.Errors = true // Watermill reads and logs them
	c.Consumer.Group.Session.Timeout = o.SessionTimeout
	c.Consumer.Group.Heartbeat.Interval = o.SessionTimeout / 4
	c.Consumer.Group.Rebalance.Timeout = o.RebalanceTimeout
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("kafkasub: Options.Configure: %w", err)
	}
	return c, nil
}
