package worker

import (
	"fmt"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
)

// delivery is one message in flight. It is acknowledged when every handler of
// its topic has finished it, or has put it to the dead letters.
type delivery struct {
	msg    *message.Message
	id     string
	key    string
	topic  string
	origin Origin
	size   int64
	fault  error // of the envelope; no handler sees the message then

	pending atomic.Int64 // handlers not yet through
	givenUp atomic.Bool  // by one of them: to be delivered again
}

func newDelivery(topic string, msg *message.Message) *delivery {
	d := &delivery{
		msg:    msg,
		id:     msg.UUID,
		key:    msg.Metadata.Get(MetaKey),
		topic:  topic,
		origin: originOf(topic, msg.Metadata),
		size:   int64(len(msg.Payload)),
	}
	for k, v := range msg.Metadata {
		d.size += int64(len(k) + len(v))
	}
	if why := msg.Metadata.Get(MetaUndecodable); why != "" {
		d.fault = &envelopeError{ClassUndecodable, fmt.Errorf("decode message: %s", why)}
	} else if f := msg.Metadata.Get(MetaFormat); f != "" && f != Format {
		d.fault = &envelopeError{ClassFormat, fmt.Errorf("%s is %q: this version reads %q", MetaFormat, f, Format)}
	}
	return d
}

// lane is what the delivery's tasks queue by: the key, or the event itself
// where it has none, so that repeats in one process run one after another.
func (d *delivery) lane(h *handler) laneID {
	switch {
	case d.key != "":
		return laneID{h, 'k', d.key}
	case d.id != "":
		return laneID{h, 'i', d.id}
	default:
		return laneID{h, 'd', fmt.Sprintf("%p", d)}
	}
}
