package fxmodule

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/fx"

	"github.com/firstcome/firstcome/outbox/journal"
	"github.com/firstcome/firstcome/stock"
)

// Journal provides *journal.Relay from a stock.JournalReader, a
// message.Publisher and the list of pools (journal.Pools, for instance by
// fx.Supply(journal.These("ticket"))), sending to a topic, and runs it.
func Journal(topic string, opts *journal.Options) fx.Option {
	return fx.Module("firstcome.journal",
		fx.Provide(func(reader stock.JournalReader, publisher message.Publisher, pools journal.Pools) (*journal.Relay, error) {
			return journal.New(JournalReader(reader), publisher, topic, pools, opts)
		}),
		fx.Invoke(func(lc fx.Lifecycle, sd fx.Shutdowner, r *journal.Relay) {
			Loop(lc, sd, "journal", r.Run)
		}),
	)
}

// JournalReader makes of a stock's journal what [journal.New] reads; it is a
// [journal.Leaser] where the stock's is. It needs no Fx application.
func JournalReader(stocks stock.JournalReader) journal.Reader {
	reader := journalReader{stocks}
	if leaser, ok := stocks.(journal.Leaser); ok {
		return struct {
			journalReader
			journal.Leaser
		}{reader, leaser}
	}
	return reader
}

// journalReader joins two packages that do not know each other.
type journalReader struct{ stock.JournalReader }

func (r journalReader) ReadJournal(ctx context.Context, pool string, n int) ([]journal.Entry, error) {
	read, err := r.JournalReader.ReadJournal(ctx, pool, n)
	if err != nil {
		return nil, err
	}
	entries := make([]journal.Entry, len(read))
	for i := range read {
		events := make([]journal.Event, len(read[i].Events))
		for j := range read[i].Events {
			events[j] = journalEvent(&read[i].Events[j])
		}
		entries[i] = journal.Entry{Position: read[i].Position, Events: events}
	}
	return entries, nil
}

func journalEvent(e *stock.Event) journal.Event {
	out := journal.Event{
		SKU: e.SKU, Epoch: e.Epoch, Seq: e.Seq, Kind: e.Kind.String(), Quantity: e.Quantity,
		Lines: journalLines(e.Lines), Released: journalLines(e.Released), At: e.At,
	}
	if !e.ID.IsZero() {
		out.ID = e.ID.String()
	}
	return out
}

func journalLines(lines []stock.Line) []journal.Line {
	if len(lines) == 0 {
		return nil
	}
	out := make([]journal.Line, len(lines))
	for i, l := range lines {
		out[i] = journal.Line(l)
	}
	return out
}
