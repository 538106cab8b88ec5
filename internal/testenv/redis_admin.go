package testenv

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// adminTimeout is for one command of this package's own, on a busy machine. A
// stopped server costs its asker that long.
const adminTimeout = 10 * time.Second

// command sends one command on a connection of its own.
func (s *RedisServer) command(args ...any) (any, error) {
	return redisCommand(s.process, args...)
}

// info is what the server tells in a section of INFO.
func (s *RedisServer) info(section string) (map[string]string, error) {
	text, err := s.text("info", section)
	if err != nil {
		return nil, err
	}
	return fields(text), nil
}

// text is command for those that answer with text.
func (s *RedisServer) text(args ...any) (string, error) {
	reply, err := s.command(args...)
	return fmt.Sprint(reply), err
}

// fields are the lines "name:value" of a text.
func fields(text string) map[string]string {
	found := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			found[name] = value
		}
	}
	return found
}

func redisCommand(server *process, args ...any) (any, error) {
	client := redis.NewClient(&redis.Options{
		Addr:                  loopback(server.port),
		Protocol:              2, // no greeting, and replies of one shape
		DisableIdentity:       true,
		MaxRetries:            -1, // the same command twice may have another answer
		ContextTimeoutEnabled: true,
	})
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	reply, err := client.Do(ctx, args...).Result()
	if err != nil {
		return nil, fmt.Errorf("%s: %v: %w", server.name, args, err)
	}
	return reply, nil
}

// eventually asks servers until nothing is amiss, for as long as a start may
// take, and otherwise returns what was amiss last.
func eventually(amiss func() error) error {
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		err := amiss()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %w", startTimeout, err)
		}
	}
}
