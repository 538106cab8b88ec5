// Package redisscript runs Lua scripts on Redis: loaded once per server,
// loaded again where a server has forgotten them, and with the calls of
// concurrent goroutines sharing one round trip. A dead connection or an absent
// server harms those alone who need it, and not for long; see [Runner].
//
// A script that writes must be safe to send twice: go-redis repeats a call
// whose reply was lost, and so do a [Runner] and its caller.
package redisscript

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts by SHA-1; nothing is protected by it
	"encoding/hex"
	"strings"
)

// Script is one Lua source and the two forms it is loaded in.
type Script struct {
	name   string
	marked form // with a #!lua line: Redis 7 then refuses undeclared slots, and out-of-memory before the first write
	plain  form // for servers that read the mark as a syntax error
}

type form struct{ source, sha string }

// New prepares a script. name shows in errors. flags are Redis 7's script
// flags, as "allow-oom" for a script that releases memory, or "no-writes".
func New(name, source string, flags ...string) *Script {
	mark := "#!lua\n"
	if len(flags) > 0 {
		mark = "#!lua flags=" + strings.Join(flags, ",") + "\n"
	}
	return &Script{name: name, marked: newForm(mark + source), plain: newForm(source)}
}

func newForm(source string) form {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // see the import
	return form{source: source, sha: hex.EncodeToString(sum[:])}
}

// String returns the script's name.
func (s *Script) String() string { return s.name }
