-- +goose Up
CREATE TABLE firstcome_outbox (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT, -- never handed out twice
    lane       INTEGER NOT NULL,                  -- hash of topic and key, 0 to 63
    format     INTEGER NOT NULL,                  -- version of this record
    topic      TEXT    NOT NULL,
    msg_key    TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    headers    TEXT    NOT NULL,                  -- JSON object, or empty
    payload    BLOB    NOT NULL,
    written_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)) -- ms since 1970
);
CREATE INDEX firstcome_outbox_lane_seq ON firstcome_outbox (lane, seq);

CREATE TABLE firstcome_outbox_parked (
    seq        INTEGER PRIMARY KEY,
    lane       INTEGER NOT NULL,
    format     INTEGER NOT NULL,
    topic      TEXT    NOT NULL,
    msg_key    TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    headers    TEXT    NOT NULL,
    payload    BLOB    NOT NULL,
    written_at INTEGER NOT NULL,
    held       INTEGER NOT NULL,                  -- waits behind a parked one of its key
    attempts   INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    parked_at  INTEGER NOT NULL                   -- ms since 1970
);
CREATE INDEX firstcome_outbox_parked_key ON firstcome_outbox_parked (lane, topic, msg_key, seq);

CREATE TABLE firstcome_outbox_lane (
    lane    INTEGER PRIMARY KEY,
    owner   TEXT    NOT NULL DEFAULT '',          -- relay, or empty
    epoch   INTEGER NOT NULL DEFAULT 0,           -- rises each time the lane changes hands
    until   INTEGER NOT NULL DEFAULT 0,           -- end of the lease, ms since 1970
    rewinds INTEGER NOT NULL DEFAULT 0,           -- rises each time rows are put back
    moves   INTEGER NOT NULL DEFAULT 0,           -- changed by whoever locks the row
    relayed INTEGER NOT NULL DEFAULT 0,           -- rows acknowledged and deleted
    dropped INTEGER NOT NULL DEFAULT 0            -- rows deleted by an operator
);
INSERT INTO firstcome_outbox_lane (lane)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 63) SELECT i FROM n;

CREATE TABLE firstcome_outbox_relay (
    relay TEXT PRIMARY KEY,
    until INTEGER NOT NULL                        -- alive until, ms since 1970
);

-- +goose Down
DROP TABLE firstcome_outbox_relay;
DROP TABLE firstcome_outbox_lane;
DROP TABLE firstcome_outbox_parked;
DROP TABLE firstcome_outbox;
