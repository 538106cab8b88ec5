package sqlledger

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// termsText is the form in which a column keeps a pool's terms.
type termsText struct {
	Total    int64        `json:"total"`
	Items    []itemText   `json:"items,omitempty"`
	Limit    int64        `json:"limit,omitempty"`
	HoldMS   int64        `json:"hold_ms"`
	OpensMS  *int64       `json:"opens_ms,omitempty"`
	ClosesMS *int64       `json:"closes_ms,omitempty"`
	Late     stock.Late   `json:"late,omitempty"`
	Unpaid   stock.Unpaid `json:"unpaid,omitempty"`
	Paused   bool         `json:"paused,omitempty"`
	Adjusted string       `json:"adjusted,omitempty"` // the last adjustment's ID in hex
}

type itemText struct {
	SKU   string `json:"sku"`
	Total int64  `json:"total"`
	Limit int64  `json:"limit,omitempty"`
}

// encodeTerms leaves out what other columns keep: the SKU, the version, and
// whether the pool is retired.
func encodeTerms(t stock.Terms) (string, error) {
	text := termsText{
		Total: t.Total, Limit: t.Limit, HoldMS: t.Hold.Milliseconds(),
		OpensMS: milliseconds(t.Opens), ClosesMS: milliseconds(t.Closes),
		Late: t.Late, Unpaid: t.Unpaid, Paused: t.Paused,
	}
	for _, item := range t.Items {
		text.Items = append(text.Items, itemText(item))
	}
	if t.Adjusted != [16]byte{} {
		text.Adjusted = hex.EncodeToString(t.Adjusted[:])
	}
	b, err := json.Marshal(text)
	if err != nil {
		return "", fmt.Errorf("write the terms: %w", err)
	}
	return string(b), nil
}

func decodeTerms(sku string, column []byte) (stock.Terms, error) {
	var text termsText
	if err := json.Unmarshal(column, &text); err != nil {
		return stock.Terms{}, fmt.Errorf("read the terms: %w", err)
	}
	t := stock.Terms{
		Pool: stock.Pool{
			SKU: sku, Total: text.Total, Limit: text.Limit, Hold: time.Duration(text.HoldMS) * time.Millisecond,
			Opens: timeOf(text.OpensMS), Closes: timeOf(text.ClosesMS), Late: text.Late, Unpaid: text.Unpaid,
		},
		Paused: text.Paused,
	}
	for _, item := range text.Items {
		t.Items = append(t.Items, stock.Item(item))
	}
	if text.Adjusted == "" {
		return t, nil
	}
	id, err := hex.DecodeString(text.Adjusted)
	if err != nil || len(id) != len(t.Adjusted) {
		return stock.Terms{}, fmt.Errorf("read the terms: adjustment %q is no ID", text.Adjusted)
	}
	copy(t.Adjusted[:], id)
	return t, nil
}

func milliseconds(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	ms := t.UnixMilli()
	return &ms
}

func timeOf(ms *int64) time.Time {
	if ms == nil {
		return time.Time{}
	}
	return time.UnixMilli(*ms)
}
