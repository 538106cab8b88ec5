package middleware

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/dunglas/httpsfv"
)

const (
	keyHeader  = "Idempotency-Key"
	maxKeySize = 255
)

var (
	// ErrKeyMissing says that the route requires an Idempotency-Key.
	ErrKeyMissing = errors.New("middleware: Idempotency-Key is missing")
	// ErrKeyMalformed says that the Idempotency-Key is none of the accepted
	// forms; the package comment has the table.
	ErrKeyMalformed = errors.New("middleware: Idempotency-Key is malformed")
)

// parseKey returns the key of a request; empty, without an error, where there
// is no header. Errors never quote what the client sent.
func parseKey(h http.Header, longest int) (string, error) {
	lines := h[keyHeader]
	switch len(lines) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", malformed("the header stands %d times", len(lines))
	}
	key := strings.Trim(lines[0], " \t")
	if strings.HasPrefix(key, `"`) {
		var err error
		if key, err = unquoteKey(key); err != nil {
			return "", err
		}
	} else if strings.ContainsAny(key, `",;\`) {
		return "", malformed("a bare key must not hold one of \" , ; \\")
	}
	if key == "" {
		return "", malformed("it is empty")
	}
	if len(key) > longest {
		return "", malformed("it has %d bytes, more than %d", len(key), longest)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return "", malformed("byte %d is no visible ASCII character", i)
		}
	}
	return key, nil
}

// unquoteKey reads a structured field string without parameters.
func unquoteKey(text string) (string, error) {
	item, err := httpsfv.UnmarshalItem([]string{text})
	if err != nil {
		return "", malformed("it is no structured field string")
	}
	key, ok := item.Value.(string)
	if !ok {
		return "", malformed("it is no structured field string")
	}
	if item.Params != nil && len(item.Params.Names()) > 0 {
		return "", malformed("it has parameters")
	}
	return key, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrKeyMalformed, fmt.Sprintf(format, args...))
}
