package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// books is what the shop says of itself at GET /audit. Figures that the shop
// has beyond these are not needed here.
type books struct {
	OK    bool `json:"ok"`
	Stock struct {
		Total int64 `json:"total"`
		Free  int64 `json:"free"`
		Held  int64 `json:"held"`
		Sold  int64 `json:"sold"`
	} `json:"stock"`
	Orders struct {
		Held      int64 `json:"held"`
		Confirmed int64 `json:"confirmed"`
		Cancelled int64 `json:"cancelled"`
	} `json:"orders"`
	Events struct {
		Written int64 `json:"written"`
		Relayed int64 `json:"relayed"`
		Handled int64 `json:"handled"`
	} `json:"events"`
	Payments struct {
		Charged int64 `json:"charged"`
		Voided  int64 `json:"voided"`
	} `json:"payments"`
	Violations []violation `json:"violations"`
}

// violation is one sentence, or whatever else the shop lists.
type violation string

// UnmarshalJSON takes a string as it is and anything else as its JSON text.
func (v *violation) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*v = violation(text)
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return err
	}
	*v = violation(compact.String())
	return nil
}

// orders is the number of all orders ever made.
func (b books) orders() int64 { return b.Orders.Held + b.Orders.Confirmed + b.Orders.Cancelled }

// settled says that nothing is under way any more.
func (b books) settled() bool {
	return b.Stock.Held == 0 && b.Orders.Held == 0 && b.Events.Handled >= b.Events.Written
}

const (
	// auditTimeout bounds one call; the shop adds up its tables for it.
	auditTimeout = 15 * time.Second
	maxAudit     = 1 << 20
)

// auditor reads the shop's books.
type auditor struct {
	url    string
	client *http.Client
}

func newAuditor(t target) *auditor {
	transport := &http.Transport{MaxIdleConnsPerHost: lookers, MaxConnsPerHost: lookers}
	return &auditor{url: t.base.String(), client: &http.Client{Transport: transport, Timeout: auditTimeout}}
}

func (a *auditor) close() { a.client.CloseIdleConnections() }

// books asks once.
func (a *auditor) books(ctx context.Context) (books, error) {
	var b books
	status, err := a.get(ctx, "/audit", "", &b)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		return books{}, fmt.Errorf("GET /audit: %w", err)
	}
	return b, nil
}

// get reads one JSON document, as a buyer if one is named.
func (a *auditor) get(ctx context.Context, path, buyer string, into any) (status int, err error) {
	//nolint:gosec // the address is the one that the user gave
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, nil)
	if err != nil {
		return 0, err
	}
	if buyer != "" {
		request.Header.Set("X-Buyer", buyer)
	}
	response, err := a.client.Do(request) //nolint:gosec // as above
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAudit))
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return 0, fmt.Errorf("not the JSON that was expected: %w", err)
	}
	return response.StatusCode, nil
}
