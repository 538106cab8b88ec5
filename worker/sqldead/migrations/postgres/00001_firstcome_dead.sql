-- +goose Up

-- One row per handler and event that it gave up. Times are microseconds since
-- 1970, by this server's clock.
CREATE TABLE firstcome_dead_letter (
    seq         bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    handler     text     COLLATE "C" NOT NULL,
    event_key   text     COLLATE "C" NOT NULL, -- the event's ID, or a hash that stands for it
    state       text     COLLATE "C" NOT NULL CHECK (state IN ('dead', 'requeued', 'dropped')),
    topic       text     COLLATE "C" NOT NULL,
    class       text     COLLATE "C" NOT NULL,
    error       text     NOT NULL,
    attempts    bigint   NOT NULL,
    requeues    bigint   NOT NULL DEFAULT 0,
    buried_at   bigint   NOT NULL,
    changed_at  bigint   NOT NULL,             -- when it was put, requeued or dropped
    taken_by    text     COLLATE "C" NOT NULL DEFAULT '',
    taken_until bigint   NOT NULL DEFAULT 0,
    cut         boolean  NOT NULL,
    size        bigint   NOT NULL,
    envelope    bytea    NOT NULL,             -- JSON: ID, key, topic, origin, metadata
    payload     bytea    NOT NULL,
    UNIQUE (handler, event_key)
);
CREATE INDEX firstcome_dead_letter_work ON firstcome_dead_letter (state, handler, seq);
CREATE INDEX firstcome_dead_letter_stats ON firstcome_dead_letter (state, topic, handler, class, buried_at);
CREATE INDEX firstcome_dead_letter_changed ON firstcome_dead_letter (state, changed_at);

-- When a worker last asked for a handler's letters.
CREATE TABLE firstcome_dead_handler (
    handler text   COLLATE "C" NOT NULL PRIMARY KEY,
    seen_at bigint NOT NULL
);

-- +goose Down
DROP TABLE firstcome_dead_handler;
DROP TABLE firstcome_dead_letter;
