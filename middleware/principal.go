package middleware

import (
	"errors"
	"fmt"
	"net/http"
)

// ErrNoPrincipal says that a scope or key function could not tell who sends the
// request. It is answered with 403, unless the function's own error is a
// [*Problem] or one of those that [WriteError] knows.
var ErrNoPrincipal = errors.New("middleware: no principal")

// SharedScope puts all callers' keys into one namespace, on purpose: each can
// then learn another's answer by its key. It is for services with one caller.
func SharedScope(*http.Request) (string, error) { return "shared", nil }

// principal asks who sends the request. Nobody is an error: an empty scope
// would be one that all strangers share.
func principal(r *http.Request, scope func(*http.Request) (string, error)) (string, error) {
	name, err := scope(r)
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, ErrNoPrincipal)
	}
	if name == "" {
		return "", ErrNoPrincipal
	}
	return name, nil
}
