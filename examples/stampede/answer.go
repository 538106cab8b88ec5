package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// kind is what an answer means to its buyer.
type kind uint8

const (
	kindHeld        kind = iota // 201: a unit is held under an order
	kindSoldOut                 // 409: a final no
	kindAllHeld                 // 409: a no for now; this crowd does not come back
	kindInFlight                // 409: the same key is still running; asked again
	kindLimited                 // 429: asked again
	kindUnavailable             // 503: asked again
	kindOther                   // anything else ends the buyer's attempt and fails the run
	kinds
)

var kindLabels = [kinds]string{
	"201 held", "409 sold-out", "409 all-held", "409 in-flight", "429 rate limited", "503 unavailable", "other",
}

// again says whether the same request is to be sent again later.
func (k kind) again() bool { return k == kindInFlight || k == kindLimited || k == kindUnavailable }

// answer is what one response says.
type answer struct {
	kind       kind
	label      string // status and problem type, if the kind is other
	order      string // the order's ID, if held
	retryAfter time.Duration
	replayed   bool // a stored result, not a new one
	closes     bool // the server ends the connection after it
}

// name is how the answer is reported.
func (a answer) name() string {
	if a.kind == kindOther {
		return a.label
	}
	return kindLabels[a.kind]
}

// classifier turns status and body into an answer. Nearly all answers of a
// crowd are the same refusal, so the last body is remembered and JSON is parsed
// once for many of them.
type classifier struct {
	status int
	body   []byte
	last   answer
}

func (c *classifier) classify(status int, body []byte) answer {
	if status == c.status && status != 201 && bytes.Equal(body, c.body) {
		return c.last
	}
	a := classify(status, body)
	c.status, c.body, c.last = status, append(c.body[:0], body...), a
	return a
}

func classify(status int, body []byte) answer {
	var says struct {
		Type  string `json:"type"`
		Order string `json:"order_id"`
	}
	readable := json.Unmarshal(body, &says) == nil
	if status == 201 {
		if !readable || says.Order == "" {
			return answer{kind: kindOther, label: "201 without an order_id"}
		}
		return answer{kind: kindHeld, order: says.Order}
	}
	problem := says.Type[strings.LastIndexAny(says.Type, ":#/")+1:]
	switch {
	case status == 409 && problem == "sold-out":
		return answer{kind: kindSoldOut}
	case status == 409 && problem == "all-held":
		return answer{kind: kindAllHeld}
	case status == 409 && problem == "in-flight":
		return answer{kind: kindInFlight}
	case status == 429:
		return answer{kind: kindLimited}
	case status == 503:
		return answer{kind: kindUnavailable}
	case problem == "" || problem == "blank": // about:blank is RFC 9457's "no more than the status"
		return answer{kind: kindOther, label: fmt.Sprint(status)}
	}
	return answer{kind: kindOther, label: fmt.Sprintf("%d %.60s", status, problem)}
}
