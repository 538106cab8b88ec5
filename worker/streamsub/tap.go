package streamsub

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// entryField carries an entry's ID to the unmarshaler, which sees the fields
// only. An entry's own field of that name is overwritten.
const entryField = "firstcome-entry"

// XReadGroup overrides the client's: entries are noted as held, and a group that
// was deleted, with its stream or alone, is made anew from the oldest entry.
// Watermill's subscriber would report the lack of it twice a second, for ever.
func (c *consumer) XReadGroup(ctx context.Context, a *redis.XReadGroupArgs) *redis.XStreamSliceCmd {
	if !c.beginRead() {
		return redis.NewXStreamSliceCmdResult(nil, context.Canceled)
	}
	defer c.reads.Done()
	cmd := c.UniversalClient.XReadGroup(ctx, a)
	if redis.HasErrorPrefix(cmd.Err(), "NOGROUP") {
		c.s.opts.Logger.WarnContext(ctx, "streamsub: the group is gone, making it anew", "topic", c.stream)
		if err := c.createGroup(ctx); err != nil {
			cmd.SetErr(err)
			return cmd
		}
		cmd.SetErr(redis.Nil) // nothing read this time
		return cmd
	}
	for _, stream := range cmd.Val() {
		c.receive(stream.Messages)
	}
	return cmd
}

// XClaim overrides the client's: entries are noted as held.
func (c *consumer) XClaim(ctx context.Context, a *redis.XClaimArgs) *redis.XMessageSliceCmd {
	if !c.beginRead() {
		cmd := redis.NewXMessageSliceCmd(ctx)
		cmd.SetErr(context.Canceled)
		return cmd
	}
	defer c.reads.Done()
	cmd := c.UniversalClient.XClaim(ctx, a)
	c.receive(cmd.Val())
	return cmd
}

// XAck overrides the client's: entries are no longer held.
func (c *consumer) XAck(ctx context.Context, stream, group string, ids ...string) *redis.IntCmd {
	cmd := c.UniversalClient.XAck(ctx, stream, group, ids...)
	if cmd.Err() == nil {
		c.drop(ids...)
	}
	return cmd
}

// XGroupDelConsumer overrides the client's, which drops what the consumer holds,
// should it have received an entry since it was looked at.
func (c *consumer) XGroupDelConsumer(ctx context.Context, _, _, name string) *redis.IntCmd {
	cmd := redis.NewIntCmd(ctx)
	if err := c.forget(ctx, name); err != nil {
		cmd.SetErr(err)
	}
	return cmd
}

func (c *consumer) receive(entries []redis.XMessage) {
	for i := range entries {
		if entries[i].Values == nil { // deleted from the stream
			entries[i].Values = map[string]any{}
		}
		entries[i].Values[entryField] = entries[i].ID
		c.hold(entries[i].ID)
	}
}
