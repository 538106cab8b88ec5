package faulty

import "bytes"

// Match tells whether a fault is meant for a request, which is all that the
// client has written since its last read (its last megabyte, if it was more).
// It must not keep or change the bytes.
type Match func(request []byte) bool

// Contains matches requests with text anywhere in them, in small or capital
// letters: a command's name, a key, a statement.
func Contains(text string) Match {
	wanted := bytes.ToLower([]byte(text))
	return func(request []byte) bool { return bytes.Contains(bytes.ToLower(request), wanted) }
}

// Not matches what m does not.
func Not(m Match) Match {
	return func(request []byte) bool { return !m(request) }
}

func all(matches []Match, request []byte) bool {
	for _, m := range matches {
		if !m(request) {
			return false
		}
	}
	return true
}
