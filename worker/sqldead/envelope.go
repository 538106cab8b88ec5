package sqldead

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/firstcome/firstcome/worker"
)

const (
	maxMetadata = 64 << 10
	maxError    = 512
	maxTopic    = 255
	maxClass    = 40
	maxHandler  = 100
)

// envelope is what a letter has beside its payload. Texts that came over the
// broker may hold any bytes, which neither a text column nor a JSON string
// keeps; []byte stands in JSON as base64.
type envelope struct {
	ID        []byte      `json:"id,omitempty"`
	Key       []byte      `json:"key,omitempty"`
	Topic     []byte      `json:"topic,omitempty"`
	From      []byte      `json:"from,omitempty"` // the origin's topic
	Partition []byte      `json:"partition,omitempty"`
	Offset    []byte      `json:"offset,omitempty"`
	Metadata  [][2][]byte `json:"metadata,omitempty"`
}

// seal returns the letter's envelope, cut where it is too large: then first the
// metadata go, then everything.
func seal(l *worker.Letter) (text []byte, cut bool, err error) {
	e := envelope{
		ID: []byte(l.EventID), Key: []byte(l.Key), Topic: []byte(l.Topic),
		From: []byte(l.Origin.Topic), Partition: []byte(l.Origin.Partition), Offset: []byte(l.Origin.Offset),
	}
	for _, k := range slices.Sorted(maps.Keys(l.Metadata)) {
		e.Metadata = append(e.Metadata, [2][]byte{[]byte(k), []byte(l.Metadata[k])})
	}
	limit := 2 * maxMetadata // base64 takes a third more
	for _, less := range []func(){func() {}, func() { e.Metadata = nil }, func() { e = envelope{ID: first(e.ID), Topic: first(e.Topic)} }} {
		less()
		if text, err = json.Marshal(e); err != nil {
			return nil, false, fmt.Errorf("encode the envelope: %w", err)
		}
		if len(text) <= limit {
			return text, cut, nil
		}
		cut = true
	}
	return text, true, nil
}

func first(b []byte) []byte { return b[:min(len(b), 1024)] }

// unseal reads what seal wrote into the letter; a tombstone's is empty.
func unseal(text []byte, l *worker.StoredLetter) error {
	if len(text) == 0 {
		return nil
	}
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return fmt.Errorf("decode the envelope of letter %d: %w", l.Seq, err)
	}
	l.EventID, l.Key, l.Topic = string(e.ID), string(e.Key), string(e.Topic)
	l.Origin = worker.Origin{Topic: string(e.From), Partition: string(e.Partition), Offset: string(e.Offset)}
	l.Metadata = make(map[string]string, len(e.Metadata))
	for _, kv := range e.Metadata {
		l.Metadata[string(kv[0])] = string(kv[1])
	}
	return nil
}

const hashed = "sha256:"

// eventKey is the event's ID as every database can hold it: what is too long or
// no text stands as its hash, and so does what looks like one.
func eventKey(id string) string {
	const longest = 200
	if len(id) <= longest && utf8.ValidString(id) && !strings.ContainsRune(id, 0) && !strings.HasPrefix(id, hashed) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hashed + hex.EncodeToString(sum[:])
}

// letterKey is eventKey for a letter. Without an ID its origin and content stand
// in for it, so that two events never share one letter, and a repeat does.
func letterKey(l *worker.Letter) string {
	if l.EventID != "" {
		return eventKey(l.EventID)
	}
	h := sha256.New()
	part := func(s string) {
		_ = binary.Write(h, binary.BigEndian, int64(len(s)))
		h.Write([]byte(s))
	}
	for _, s := range []string{l.Topic, l.Origin.Topic, l.Origin.Partition, l.Origin.Offset, l.Key, string(l.Payload)} {
		part(s)
	}
	if l.Origin.Offset == "" { // nothing but the content tells it from others
		for _, k := range slices.Sorted(maps.Keys(l.Metadata)) {
			part(k)
			part(l.Metadata[k])
		}
	}
	return hashed + "none:" + hex.EncodeToString(h.Sum(nil))
}

// clip makes a text fit for a column: valid, without NUL, bounded.
func clip(text string, limit int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "?")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
