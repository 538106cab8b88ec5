package streamsub

import (
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/firstcome/firstcome/worker"
)

// unmarshaler never fails: an error of the inner one would end the subscription.
type unmarshaler struct {
	inner  redisstream.Unmarshaller
	stream string
}

var _ redisstream.Unmarshaller = unmarshaler{}

// Unmarshal implements redisstream.Unmarshaller.
func (u unmarshaler) Unmarshal(values map[string]any) (*message.Message, error) {
	entry, _ := values[entryField].(string)
	delete(values, entryField)
	msg, err := u.try(values)
	if err != nil {
		msg = raw(values)
		msg.Metadata.Set(worker.MetaUndecodable, err.Error())
	} else {
		delete(msg.Metadata, worker.MetaUndecodable)
	}
	if msg.UUID == "" {
		msg.UUID = u.stream + "/" + entry
	}
	msg.Metadata.Set(worker.MetaOriginTopic, u.stream)
	msg.Metadata.Set(worker.MetaOriginOffset, entry)
	delete(msg.Metadata, worker.MetaOriginPartition)
	return msg, nil
}

func (u unmarshaler) try(values map[string]any) (msg *message.Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("unmarshaler panicked: %T", v)
		}
	}()
	msg, err = u.inner.Unmarshal(values)
	if err == nil && msg == nil {
		err = errors.New("unmarshaler returned no message")
	}
	if err == nil && msg.Metadata == nil {
		msg.Metadata = message.Metadata{}
	}
	return msg, err
}

// raw is the entry as it stands: its payload field, where it has one, and every
// other field in the metadata.
func raw(values map[string]any) *message.Message {
	msg := message.NewMessage("", nil)
	for field, value := range values {
		text, _ := value.(string)
		switch field {
		case "payload":
			msg.Payload = message.Payload(text)
		case redisstream.UUIDHeaderKey:
			msg.UUID = text
		default:
			msg.Metadata.Set("field."+field, text)
		}
	}
	return msg
}
