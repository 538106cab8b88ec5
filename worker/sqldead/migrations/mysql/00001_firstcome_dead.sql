-- +goose Up

-- One row per handler and event that it gave up. Times are microseconds since
-- 1970, by this server's clock.
CREATE TABLE firstcome_dead_letter (
    seq         BIGINT         NOT NULL AUTO_INCREMENT PRIMARY KEY,
    handler     VARBINARY(100) NOT NULL,
    event_key   VARBINARY(200) NOT NULL COMMENT 'the event''s ID, or a hash that stands for it',
    state       VARBINARY(10)  NOT NULL CHECK (state IN ('dead', 'requeued', 'dropped')),
    topic       VARBINARY(255) NOT NULL,
    class       VARBINARY(40)  NOT NULL,
    error       VARBINARY(512) NOT NULL,
    attempts    BIGINT         NOT NULL,
    requeues    BIGINT         NOT NULL DEFAULT 0,
    buried_at   BIGINT         NOT NULL,
    changed_at  BIGINT         NOT NULL COMMENT 'when it was put, requeued or dropped',
    taken_by    VARBINARY(64)  NOT NULL DEFAULT '',
    taken_until BIGINT         NOT NULL DEFAULT 0,
    cut         BOOLEAN        NOT NULL,
    size        BIGINT         NOT NULL,
    envelope    LONGBLOB       NOT NULL COMMENT 'JSON: ID, key, topic, origin, metadata',
    payload     LONGBLOB       NOT NULL,
    UNIQUE KEY firstcome_dead_letter_event (handler, event_key),
    KEY firstcome_dead_letter_work (state, handler, seq),
    KEY firstcome_dead_letter_stats (state, topic, handler, class, buried_at),
    KEY firstcome_dead_letter_changed (state, changed_at)
) ENGINE = InnoDB;

-- When a worker last asked for a handler's letters.
CREATE TABLE firstcome_dead_handler (
    handler VARBINARY(100) NOT NULL PRIMARY KEY,
    seen_at BIGINT         NOT NULL
) ENGINE = InnoDB;

-- +goose Down
DROP TABLE firstcome_dead_handler;
DROP TABLE firstcome_dead_letter;
