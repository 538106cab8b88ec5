package redisstock

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/firstcome/firstcome/internal/redisscript"
	"github.com/firstcome/firstcome/stock"
)

// Mutate makes the store run a script in which a guard is missing: each text
// of edits is replaced by the one that follows it. For tests that prove that
// some test would notice.
func Mutate(s *Store, script string, edits ...string) error {
	place, ok := map[string]**redisscript.Script{
		"reserve": &s.scripts.reserve, "change": &s.scripts.change, "sweep": &s.scripts.sweep, "settle": &s.scripts.settle,
		"forget": &s.scripts.forget, "levels": &s.scripts.levels, "adjust": &s.scripts.adjust, "repair": &s.scripts.repair,
		"retire": &s.scripts.retire, "drop": &s.scripts.drop, "trim": &s.scripts.trim, "open": &s.scripts.open, "restore": &s.scripts.restore,
	}[script]
	if !ok {
		return fmt.Errorf("there is no script %q", script)
	}
	source := sources[script]
	for i := 0; i < len(edits); i += 2 {
		if strings.Count(source, edits[i]) != 1 {
			return fmt.Errorf("%s.lua holds %q %d times, want once", script, edits[i], strings.Count(source, edits[i]))
		}
		source = strings.Replace(source, edits[i], edits[i+1], 1)
	}
	*place = redisscript.New(script+" without a guard", source)
	return nil
}

// Keys are the pool's keys: pool, due, journal.
func Keys(s *Store, sku string) []string { return keysOf(s.opts.Prefix, partOf(sku)) }

// Waiting is how many reservations of the pool wait for the next flight.
func Waiting(s *Store, sku string) int { waiting, _ := load(s, sku); return waiting }

// Flying tells that a flight is in the air and nobody waits.
func Flying(s *Store, sku string) bool {
	waiting, flights := load(s, sku)
	return flights > 0 && waiting == 0
}

func load(s *Store, sku string) (waiting, flights int) {
	p, ok := s.known(partOf(sku))
	if !ok {
		return 0, 0
	}
	return p.queue.Load()
}

// SweepOnce does what Run does when it visits the pool.
func SweepOnce(ctx context.Context, s *Store, sku string) error {
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return err
	}
	_, err = s.sweep(ctx, p)
	return err
}

// SweepIDs is the bound of one sweep.
const SweepIDs = sweepIDs

// Reconnect makes the store use another client.
func Reconnect(s *Store, client redis.UniversalClient) {
	s.client = client
	s.runner = redisscript.NewRunner(client, &redisscript.Options{Timeout: s.opts.Timeout, MaxQueue: s.opts.MaxQueue})
}

// Repair mends one fault as Reconcile does.
func Repair(ctx context.Context, s *Store, sku string, f stock.Fault) (stock.Repair, error) {
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return stock.Repair{}, err
	}
	return s.repair(ctx, p, f)
}

// Forget does one step of a round of forgetting, as if one were due here.
func Forget(ctx context.Context, s *Store, sku string) (more bool, err error) {
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return false, err
	}
	p.chores.forgotten = time.Time{}
	return s.forget(ctx, p)
}
