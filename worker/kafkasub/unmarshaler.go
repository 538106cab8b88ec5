package kafkasub

import (
	"fmt"
	"strconv"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/worker"
)

// unmarshaler never fails: an error of the inner one would end the session of
// the group, and the record would come again, for ever.
type unmarshaler struct{ inner kafka.Unmarshaler }

var _ kafka.Unmarshaler = unmarshaler{}

// Unmarshal implements kafka.Unmarshaler.
func (u unmarshaler) Unmarshal(record *sarama.ConsumerMessage) (*message.Message, error) {
	msg, err := u.try(record)
	if err != nil {
		msg = raw(record)
		msg.Metadata.Set(worker.MetaUndecodable, err.Error())
	} else {
		delete(msg.Metadata, worker.MetaUndecodable)
	}
	if msg.UUID == "" {
		msg.UUID = placeID(record)
	}
	if msg.Metadata.Get(worker.MetaKey) == "" && len(record.Key) > 0 {
		msg.Metadata.Set(worker.MetaKey, string(record.Key))
	}
	msg.Metadata.Set(worker.MetaOriginTopic, record.Topic)
	msg.Metadata.Set(worker.MetaOriginPartition, strconv.FormatInt(int64(record.Partition), 10))
	msg.Metadata.Set(worker.MetaOriginOffset, strconv.FormatInt(record.Offset, 10))
	return msg, nil
}

func (u unmarshaler) try(record *sarama.ConsumerMessage) (msg *message.Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("unmarshaler panicked: %T", v)
		}
	}()
	msg, err = u.inner.Unmarshal(record)
	if err == nil && msg == nil {
		err = fmt.Errorf("unmarshaler returned no message")
	}
	if err == nil && msg.Metadata == nil {
		msg.Metadata = message.Metadata{}
	}
	return msg, err
}

// raw is the record as it stands: value, headers and UUID, where it has one.
func raw(record *sarama.ConsumerMessage) *message.Message {
	msg := message.NewMessage("", record.Value)
	for _, h := range record.Headers {
		if string(h.Key) == kafka.UUIDHeaderKey {
			msg.UUID = string(h.Value)
			continue
		}
		msg.Metadata.Set(string(h.Key), string(h.Value))
	}
	return msg
}

// placeID tells a record apart at each delivery. The time keeps it from meeting
// a record at the same place of a topic that was deleted and made anew.
func placeID(record *sarama.ConsumerMessage) string {
	return fmt.Sprintf("%s/%d/%d@%d", record.Topic, record.Partition, record.Offset, record.Timestamp.UnixMilli())
}
