package sqloutbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/propagation"

	"github.com/firstcome/firstcome/internal/sqldialect"
	"github.com/firstcome/firstcome/outbox"
)

// Executor is what [Store.Add] needs of a transaction: *sql.Tx and *sql.Conn
// have it, and so do the transactions of sqlx, bun and gorm.
type Executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

var _ sqldialect.Executor = Executor(nil)

const (
	addRows  = 500     // per statement: far below every database's bound on placeholders
	addBytes = 4 << 20 // per statement: far below MySQL's max_allowed_packet
)

// Add writes messages within the caller's transaction: they are relayed if it
// commits, and never were if it rolls back. Those of one call stand in the order
// of the arguments. All are validated before the first is written
// ([outbox.ErrInvalid]). The trace of ctx travels with them.
//
// Order between transactions is kept for a key when they lock or version-check
// what the key names before they add; nobody can order transactions that do
// not see each other.
func (s *Store) Add(ctx context.Context, tx Executor, msgs ...outbox.Message) error {
	if tx == nil {
		return errors.New("sqloutbox: add: tx is nil")
	}
	for i := range msgs {
		if err := msgs[i].Validate(); err != nil {
			return fmt.Errorf("sqloutbox: add: message %d of %d: %w", i+1, len(msgs), err)
		}
	}
	trace := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, trace)
	for len(msgs) > 0 {
		n := addChunk(msgs)
		if err := s.insert(ctx, tx, msgs[:n], trace); err != nil {
			return fmt.Errorf("sqloutbox: add: %w", err)
		}
		msgs = msgs[n:]
	}
	return nil
}

// addChunk is how many of the messages go into one statement, one at least.
func addChunk(msgs []outbox.Message) int {
	n, size := 0, 0
	for n < len(msgs) && n < addRows {
		size += len(msgs[n].Payload)
		if n > 0 && size > addBytes {
			break
		}
		n++
	}
	return n
}

func (s *Store) insert(ctx context.Context, tx Executor, msgs []outbox.Message, trace map[string]string) error {
	args := make([]any, 0, 7*len(msgs))
	for i := range msgs {
		m := &msgs[i]
		headers, err := encodeHeaders(m.Headers, trace)
		if err != nil {
			return err
		}
		payload := m.Payload
		if payload == nil {
			payload = []byte{} // NULL otherwise
		}
		args = append(args, outbox.LaneOf(m.Topic, m.Key), outbox.StoredFormat, m.Topic, m.Key, m.ID, headers, payload)
	}
	const row = ",(?,?,?,?,?,?,?)"
	query := "INSERT INTO firstcome_outbox (lane, format, topic, msg_key, id, headers, payload) VALUES " +
		strings.Repeat(row, len(msgs))[1:]
	_, err := tx.ExecContext(ctx, s.dialect.Rebind(query), args...)
	return err
}

// encodeHeaders joins a message's own headers with the trace; its own win.
func encodeHeaders(headers, trace map[string]string) (string, error) {
	if len(headers)+len(trace) == 0 {
		return "", nil
	}
	all := make(map[string]string, len(headers)+len(trace))
	for name, value := range trace {
		all[name] = value
	}
	for name, value := range headers {
		all[name] = value
	}
	text, err := json.Marshal(all)
	return string(text), err
}

func decodeHeaders(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	var headers map[string]string
	if err := json.Unmarshal([]byte(text), &headers); err != nil {
		return nil, fmt.Errorf("stored headers: %w", err)
	}
	return headers, nil
}
