package kafkapub

import (
	"errors"
	"fmt"
	"slices"

	"github.com/IBM/sarama"

	"github.com/firstcome/firstcome/outbox"
)

// ofTheMessage are answers that say no to this message, whatever the state of
// the cluster. A missing topic is among them: it holds up its own keys only.
var ofTheMessage = []sarama.KError{
	sarama.ErrInvalidMessage, sarama.ErrInvalidMessageSize, sarama.ErrMessageSizeTooLarge,
	sarama.ErrMessageSetSizeTooLarge, sarama.ErrInvalidTopic, sarama.ErrUnknownTopicOrPartition,
	sarama.ErrTopicAuthorizationFailed, sarama.ErrInvalidTimestamp, sarama.ErrPolicyViolation,
	sarama.ErrInvalidRecord, sarama.ErrUnsupportedForMessageFormat,
}

// verdict marks an error as the message's own or the broker's. Of the chain only
// the cause is kept: Watermill wraps it with the message's ID, which is not for
// logs.
func verdict(err error) error {
	err = fmt.Errorf("kafkapub: publish: %w", cause(err))
	var answer sarama.KError
	if errors.As(err, &answer) {
		if slices.Contains(ofTheMessage, answer) {
			return outbox.Refused(err)
		}
		return outbox.Unavailable(err) // no leader, too few replicas, timed out, …
	}
	var config sarama.ConfigurationError
	if errors.As(err, &config) { // how sarama says "larger than MaxMessageBytes"
		return outbox.Refused(err)
	}
	return outbox.Unavailable(err) // out of brokers, not connected, shutting down
}

func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
