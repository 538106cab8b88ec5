package streamsub

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/redisscript"
)

//go:embed scripts/forget.lua
var forgetSource string

var forgetScript = redisscript.New("streamsub.forget", forgetSource)

// separator stands between the given name of a consumer and what makes each
// subscription's name its own.
const separator = "~"

// takeoverChunk is how many entries one call takes over.
const takeoverChunk = 500

// consumer is one subscription: a consumer of the group under a name that was
// never used before, so that all it holds is known to it.
type consumer struct {
	redis.UniversalClient // what Watermill's subscriber calls; tap.go has what differs

	s      *Subscriber
	stream string
	name   string

	mu    sync.Mutex
	held  map[string]bool // entry IDs received and not yet acknowledged
	ended bool            // no reading call begins any more
	reads sync.WaitGroup  // those under way
}

func newConsumer(s *Subscriber, stream string) *consumer {
	return &consumer{
		UniversalClient: s.client,
		s:               s,
		stream:          stream,
		name:            s.opts.Consumer + separator + watermill.NewShortUUID(),
		held:            map[string]bool{},
	}
}

func (c *consumer) config() redisstream.SubscriberConfig {
	return redisstream.SubscriberConfig{
		Client:        c,
		Unmarshaller:  unmarshaler{inner: c.s.opts.Unmarshaler, stream: c.stream},
		Consumer:      c.name,
		ConsumerGroup: c.s.group,
		OldestId:      "0",
		MaxIdleTime:   c.s.opts.ClaimIdle,
		ClaimInterval: c.s.opts.ClaimIdle / 3,
		// What this process holds is not idle, whatever the server says.
		ShouldClaimPendingMessage: func(p redis.XPendingExt) bool { return !c.holds(p.ID) },
		// The first read would block without end otherwise, and outlive Close.
		DisableIndefiniteInitialBlock: true,
	}
}

// prepare makes the group and takes over what earlier processes of the same
// name had in hand.
func (c *consumer) prepare(ctx context.Context) error {
	if err := c.createGroup(ctx); err != nil {
		return err
	}
	if c.s.opts.Consumer == "" {
		return nil
	}
	consumers, err := c.XInfoConsumers(ctx, c.stream, c.s.group).Result()
	if err != nil {
		return fmt.Errorf("list consumers: %w", err)
	}
	for _, other := range consumers {
		given, _, _ := strings.Cut(other.Name, separator)
		if given != c.s.opts.Consumer || c.s.isOurs(other.Name) {
			continue
		}
		if err := c.takeOver(ctx, other.Name); err != nil {
			return fmt.Errorf("take over: %w", err)
		}
		if err := c.forget(ctx, other.Name); err != nil {
			return fmt.Errorf("forget consumer: %w", err)
		}
	}
	return nil
}

func (c *consumer) createGroup(ctx context.Context) error {
	err := c.XGroupCreateMkStream(ctx, c.stream, c.s.group, "0").Err()
	if err != nil && !redis.HasErrorPrefix(err, "BUSYGROUP") {
		return fmt.Errorf("create group: %w", err)
	}
	return nil
}

// takeOver makes another's entries ours and old, so that the claiming pass with
// which Watermill's subscriber begins delivers them first, in their order.
func (c *consumer) takeOver(ctx context.Context, other string) error {
	for {
		pending, err := c.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: c.stream, Group: c.s.group, Start: "-", End: "+", Count: takeoverChunk, Consumer: other,
		}).Result()
		if err != nil || len(pending) == 0 {
			return err
		}
		ids := make([]string, len(pending))
		for i, p := range pending {
			ids[i] = p.ID
		}
		if err := c.assign(ctx, ids, c.s.opts.ClaimIdle); err != nil {
			return err
		}
	}
}

// assign makes the entries ours, idle for that long, without counting a
// delivery.
func (c *consumer) assign(ctx context.Context, ids []string, idle time.Duration) error {
	args := []any{"XCLAIM", c.stream, c.s.group, c.name, 0}
	for _, id := range ids {
		args = append(args, id)
	}
	return c.Do(ctx, append(args, "IDLE", idle.Milliseconds(), "JUSTID")...).Err()
}

// forward hands messages on until the subscription ends, and then leaves the
// group in order.
func (c *consumer) forward(ctx context.Context, cancel func(), in <-chan *message.Message, out chan<- *message.Message) {
	var signs sync.WaitGroup
	signs.Go(func() { c.giveSigns(ctx) })
	for msg := range in {
		select {
		case out <- msg:
		case <-ctx.Done():
		}
	}
	cancel() // also where Watermill's subscriber ended by itself
	signs.Wait()
	c.endReads()
	c.handBack(context.WithoutCancel(ctx))
}

// giveSigns sets back the idle time of what is held, so that nobody takes it
// from a live handler.
func (c *consumer) giveSigns(ctx context.Context) {
	ticker := time.NewTicker(c.s.opts.ClaimIdle / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, id := range c.holding() {
			if err := c.giveSign(ctx, id); err != nil && ctx.Err() == nil {
				c.s.opts.Logger.WarnContext(ctx, "streamsub: no sign of life given", "topic", c.stream, "entry", id, "err", err)
			}
		}
	}
}

// giveSign asks first whose the entry is: one that was taken from us while we
// were frozen stays with its new consumer.
func (c *consumer) giveSign(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.s.opts.ClaimIdle)
	defer cancel()
	mine, err := c.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: c.stream, Group: c.s.group, Start: id, End: id, Count: 1, Consumer: c.name,
	}).Result()
	if err != nil || len(mine) == 0 {
		return err
	}
	return c.assign(ctx, []string{id}, 0)
}

// handBack makes what was received and not finished old, so that the next
// consumer takes it at once, and removes this one when nothing is left.
func (c *consumer) handBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	pending, err := c.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: c.stream, Group: c.s.group, Start: "-", End: "+", Count: takeoverChunk, Consumer: c.name,
	}).Result()
	switch {
	case err != nil:
	case len(pending) == 0:
		err = c.forget(ctx, c.name)
	default:
		ids := make([]string, len(pending))
		for i, p := range pending {
			ids[i] = p.ID
		}
		err = c.assign(ctx, ids, c.s.opts.ClaimIdle)
	}
	if err != nil { // others take over after ClaimIdle all the same
		c.s.opts.Logger.DebugContext(ctx, "streamsub: nothing handed back", "topic", c.stream, "err", err)
	}
}

func (c *consumer) forget(ctx context.Context, name string) error {
	_, err := c.s.scripts.RunNow(ctx, forgetScript, []string{c.stream}, c.s.group, name)
	return err
}

func (c *consumer) beginRead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.reads.Add(1)
	return true
}

// endReads waits for the reading calls: Watermill's subscriber leaves its last
// one to itself, and what that receives is ours to hand back.
func (c *consumer) endReads() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.reads.Wait()
}

func (c *consumer) hold(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[id] = true
}

func (c *consumer) drop(ids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		delete(c.held, id)
	}
}

func (c *consumer) holds(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[id]
}

func (c *consumer) holding() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, 0, len(c.held))
	for id := range c.held {
		ids = append(ids, id)
	}
	return ids
}
