package redisstock

import (
	"context"
	"crypto/sha1" //nolint:gosec // what Lua in Redis can compute; it tells entries apart and protects nothing
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// mostEntries is how many entries are read or trimmed in one call.
const mostEntries = 1000

// ReadJournal implements [stock.JournalReader]. n is at most 1,000. It begins
// with what stands first, wherever an earlier call had come to: a server that
// took over may give lower stream IDs than the lost one did.
func (s *Store) ReadJournal(ctx context.Context, sku string, n int) ([]stock.JournalEntry, error) {
	if n < 1 || n > mostEntries {
		return nil, fmt.Errorf("%w: n is %d, want 1 to 1,000", stock.ErrInvalid, n)
	}
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return nil, err
	}
	raw, err := s.client.XRangeN(ctx, p.keys[journalKey], "-", "+", int64(n)).Result()
	if err != nil {
		return nil, fmt.Errorf("redisstock: read journal: %w", err)
	}
	entries := make([]stock.JournalEntry, 0, len(raw))
	for _, m := range raw {
		text, _ := m.Values["e"].(string)
		events, err := parseEvents(p, text)
		if err != nil {
			return nil, fmt.Errorf("redisstock: journal entry %s: %w", m.ID, err)
		}
		entries = append(entries, stock.JournalEntry{Position: positionOf(text), Events: events})
		// What is published must not be told again of something else: a server
		// that went back behind it is fenced.
		if n := len(events); n > 0 {
			p.saw(stock.Mark{Epoch: events[n-1].Epoch, Seq: events[n-1].Seq})
		}
	}
	return entries, nil
}

// TrimJournal implements [stock.JournalReader]. It takes 1 to 1,000 positions.
func (s *Store) TrimJournal(ctx context.Context, sku string, relayed ...string) error {
	if len(relayed) < 1 || len(relayed) > mostEntries {
		return fmt.Errorf("%w: %d journal positions, want 1 to 1,000", stock.ErrInvalid, len(relayed))
	}
	var digests strings.Builder
	for _, position := range relayed {
		if sum, err := hex.DecodeString(position); err != nil || len(sum) != sha1.Size {
			return fmt.Errorf("%w: journal position %q", stock.ErrInvalid, position)
		}
		digests.WriteString(position + ",")
	}
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return err
	}
	if _, err := s.runner.Run(ctx, s.scripts.trim, []string{p.keys[journalKey]}, digests.String(), len(relayed)); err != nil {
		return unknown("trim journal", err)
	}
	return nil
}

// positionOf names an entry by all that it says.
func positionOf(text string) string {
	digest := sha1.Sum([]byte(text)) //nolint:gosec // see the import
	return hex.EncodeToString(digest[:])
}

var errEntry = errors.New("malformed events")

// parseEvents reads an entry as lib.lua writes it: "1,epoch,first seq,ms;" and
// then runs of events of one kind, each a letter, amount ",", how many ";",
// and buyer (12 bytes) and claim (16 bytes) of each.
func parseEvents(p *pool, text string) ([]stock.Event, error) {
	head, text, ok := strings.Cut(text, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) != 4 {
		return nil, errEntry
	}
	if fields[0] != "1" {
		return nil, fmt.Errorf("format is version %s, this build knows 1", fields[0])
	}
	e := stock.Event{SKU: p.opened.SKU, Epoch: toInt(fields[1]), Seq: toInt(fields[2]), At: time.UnixMilli(toInt(fields[3]))}
	copy(e.ID[:8], p.part[:])
	var events []stock.Event
	for text != "" {
		var run string
		run, text, ok = strings.Cut(text, ";")
		said, count, _ := strings.Cut(run[min(1, len(run)):], ",")
		n := toInt(count)
		if !ok || n < 1 || n > int64(len(text)/28) {
			return nil, errEntry
		}
		am, err := parseAmount(said, p.items())
		if e.Kind = kindOf(run[0]); e.Kind == 0 || err != nil {
			return nil, errEntry
		}
		if e.Quantity, e.Lines, e.Released = am.lines(p.opened); e.Quantity < 1 {
			return nil, errEntry
		}
		for ; n > 0; n-- {
			event := e
			if e.Kind == stock.EventAdded || e.Kind == stock.EventTakenOut {
				event.ID = stock.ID{}
			} else {
				copy(event.ID[8:], text)
			}
			events = append(events, event)
			text = text[28:]
			e.Seq++
		}
	}
	return events, nil
}

func kindOf(letter byte) stock.EventKind {
	switch letter {
	case 'R':
		return stock.EventReserved
	case 'C':
		return stock.EventConfirmed
	case 'K':
		return stock.EventCancelled
	case 'X':
		return stock.EventExpired
	case 'B':
		return stock.EventReturned
	case 'E':
		return stock.EventExtended
	case 'T':
		return stock.EventLateConfirmed
	case 'L':
		return stock.EventLate
	case 'A':
		return stock.EventAdded
	case 'D':
		return stock.EventTakenOut
	default:
		return 0
	}
}

// LeaseJournal takes or renews the lease on a pool's journal for a relay, so
// that of several relays one reads and the others stand by, and reports whether
// this one has it now. ttl counts by Redis' clock; 0 gives the lease back. It
// saves copies and promises nothing: a relay that froze may go on after its
// lease has ended.
func (s *Store) LeaseJournal(ctx context.Context, sku, relay string, ttl time.Duration) (bool, error) {
	if relay == "" || len(relay) > stock.MaxNameLength || ttl < 0 || ttl > 0 && ttl < time.Millisecond {
		return false, fmt.Errorf("%w: relay has %d bytes, ttl is %v", stock.ErrInvalid, len(relay), ttl)
	}
	p, err := s.poolOf(ctx, sku)
	if err != nil {
		return false, err
	}
	key := leaseKeyOf(p.keys)
	raw, err := s.runner.Run(ctx, s.scripts.lease, []string{key}, relay, ttl.Milliseconds())
	if err != nil {
		return false, unknown("lease journal", err)
	}
	return toInt(raw) == 1, nil
}
