package worker

import (
	"context"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// A subscription that lasted this long was a good one: the delays begin anew.
const goodSubscription = time.Minute

// resubscribeDelay is short, so that a broker that is back is soon read again.
var resubscribeDelay = Exponential(100*time.Millisecond, 5*time.Second)

// consume keeps one topic subscribed until the stop. Subscribers end their
// channel when they meet what they cannot handle; ending with them would stop
// the line without a word.
func (r *run) consume(topic string) {
	for failures := 1; ; failures++ {
		began := time.Now()
		messages, err := r.w.subscriber.Subscribe(r.subscription, topic)
		if err == nil {
			r.subscribed.Add(1)
			if failures > 1 {
				r.log.Info("worker: subscribed again", "topic", topic, "failures", failures-1)
			}
			received := r.receive(topic, messages)
			r.subscribed.Add(-1)
			if r.isStopping() {
				r.discard(messages)
				return
			}
			if received || time.Since(began) > goodSubscription {
				failures = 1
			}
		}
		if r.isStopping() {
			return
		}
		delay := resubscribeDelay(failures)
		level := slog.LevelDebug
		if failures == 1 { // one line for a broker that is away
			level = slog.LevelWarn
		}
		r.log.Log(context.Background(), level, "worker: subscription lost, subscribing again",
			"topic", topic, "err", err, "failures", failures, "delay", delay)
		r.w.telemetry.resubscribed(topic)
		if !r.sleep(delay, nil) {
			return
		}
	}
}

// receive takes messages in until the channel closes or the stop comes.
func (r *run) receive(topic string, messages <-chan *message.Message) (received bool) {
	for {
		select {
		case <-r.stopping:
			return received
		case msg, ok := <-messages:
			if !ok || !r.admit(topic, msg) {
				return received
			}
			received = true
		}
	}
}

// discard waits for the end of a subscription: closing the channel is the
// subscriber's last act, after its offsets are committed and its group left.
// What still comes is not acknowledged.
func (r *run) discard(messages <-chan *message.Message) {
	<-r.subscription.Done()
	for range messages { // emptied
	}
}

// sleep waits; false when the stop, or giveUp, came first.
func (r *run) sleep(d time.Duration, giveUp <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-giveUp:
		return false
	case <-r.stopping:
		return false
	}
}
