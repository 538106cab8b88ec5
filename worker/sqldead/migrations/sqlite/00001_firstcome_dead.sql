-- +goose Up

-- One row per handler and event that it gave up. Times are microseconds since
-- 1970.
CREATE TABLE firstcome_dead_letter (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    handler     TEXT    NOT NULL,
    event_key   TEXT    NOT NULL, -- the event's ID, or a hash that stands for it
    state       TEXT    NOT NULL CHECK (state IN ('dead', 'requeued', 'dropped')),
    topic       TEXT    NOT NULL,
    class       TEXT    NOT NULL,
    error       TEXT    NOT NULL,
    attempts    INTEGER NOT NULL,
    requeues    INTEGER NOT NULL DEFAULT 0,
    buried_at   INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL, -- when it was put, requeued or dropped
    taken_by    TEXT    NOT NULL DEFAULT '',
    taken_until INTEGER NOT NULL DEFAULT 0,
    cut         INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    envelope    BLOB    NOT NULL, -- JSON: ID, key, topic, origin, metadata
    payload     BLOB    NOT NULL,
    UNIQUE (handler, event_key)
);
CREATE INDEX firstcome_dead_letter_work ON firstcome_dead_letter (state, handler, seq);
CREATE INDEX firstcome_dead_letter_stats ON firstcome_dead_letter (state, topic, handler, class, buried_at);
CREATE INDEX firstcome_dead_letter_changed ON firstcome_dead_letter (state, changed_at);

-- When a worker last asked for a handler's letters.
CREATE TABLE firstcome_dead_handler (
    handler TEXT    NOT NULL PRIMARY KEY,
    seen_at INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE firstcome_dead_handler;
DROP TABLE firstcome_dead_letter;
